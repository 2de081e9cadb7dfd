"""The corpus as a whole: how much there is of what, how far labelled, at what price, and
what is left out.
"""

from collections.abc import Iterable, Mapping
from typing import Any

from fastapi import APIRouter
from fastapi.responses import HTMLResponse

from annotate.signal_report import lag, signal_columns
from core.values import grouped
from explorer import charts
from explorer.access import LakeReader
from explorer.index import Indexed
from explorer.site import Visit, Visiting
from ingest.source_parts import part_form
from warehouse.lake.connection import has
from warehouse.lake.outcomes import question
from warehouse.lake.references import sentences
from warehouse.lake.stored import lags_by_dataset, signals_by_dataset

router = APIRouter()
BINS = 30
REASONS = 30  # of the quarantine, the commonest
COUNTED = ("episodes", "ok", "outcomes_known", "assumed_complete", "frames", "labelled_frames")
OF_ALL = ("hours", "shards", "samples", "cost_usd", *COUNTED)
# Of the index
COUNTS_SQL = """
    SELECT dataset::VARCHAR AS dataset, any_value(robot)::VARCHAR AS robot, any_value(license)::VARCHAR AS license,
           count(*) AS episodes, count(*) FILTER (reason = 'ok') AS ok,
           count(*) FILTER (reason = 'ok' AND success <> 'unknown') AS outcomes_known,
           count(*) FILTER (reason = 'ok' AND end_by = 'assumed') AS assumed_complete,
           coalesce(sum(num_frames) FILTER (reason = 'ok'), 0)::BIGINT AS frames,
           coalesce(sum(duration_s) FILTER (reason = 'ok'), 0) / 3600 AS hours,
           coalesce(sum(num_frames) FILTER (reason = 'ok' AND label_run <> '' AND named), 0)::BIGINT AS labelled_frames
    FROM episodes GROUP BY 1"""
UNFINISHED_SQL = (
    "SELECT dataset, count(*) FROM review WHERE list_contains(signs, 'looks unfinished') GROUP BY 1"
)
OF_INDEX = {
    "commonest": """
        SELECT name, count(*) AS episodes FROM step_rows JOIN steps USING (step_id) GROUP BY 1
        ORDER BY 2 DESC, 1 LIMIT 12""",
    "quarantine": f"""
        SELECT dataset::VARCHAR AS dataset, reason::VARCHAR AS reason, count(*) AS episodes FROM episodes
        WHERE reason <> 'ok' GROUP BY ALL ORDER BY 3 DESC, 1, 2 LIMIT {REASONS}""",
    "licences": """
        SELECT license::VARCHAR AS license, count(DISTINCT dataset) AS datasets, count(*) FILTER (reason = 'ok') AS ok,
               coalesce(sum(duration_s) FILTER (reason = 'ok'), 0) / 3600 AS hours
        FROM episodes GROUP BY 1 ORDER BY 4 DESC, 1""",
    "labels": """
        SELECT annotator::VARCHAR AS annotator, label_run::VARCHAR AS label_run, count(*) AS episodes FROM episodes
        WHERE reason = 'ok' GROUP BY ALL ORDER BY 3 DESC, 1, 2""",
}
# Of the lake: one without any listed episode is shown, too
DATASETS_SQL = """
    SELECT d.dataset, d.title, d.role, c.labels, v.cost_usd, coalesce(h.shards, 0) AS shards,
           coalesce(h.samples, 0) AS samples
    FROM datasets d LEFT JOIN coverage c USING (dataset)
    LEFT JOIN (SELECT dataset, sum(cost_usd) AS cost_usd FROM vlm_calls GROUP BY 1) v USING (dataset)
    LEFT JOIN (SELECT dataset, count(*) AS shards, sum(samples) AS samples FROM shards GROUP BY 1) h USING (dataset)
    ORDER BY 1"""
OF_LAKE = {
    # Datasets as a whole; usable episodes that have no label
    "whole": """
        SELECT dataset, reason, detail, NULL AS episodes FROM findings
        WHERE episode_index IS NULL AND severity = 'unusable'
        UNION ALL SELECT q.dataset, q.reason, 'no label', count(*) FROM quarantine q
        SEMI JOIN (FROM episodes WHERE status = 'ok') USING (dataset, episode_index) GROUP BY ALL ORDER BY 1, 2""",
    "costs": """
        SELECT stage, model, count(*) AS calls, sum(prompt_tokens)::BIGINT AS prompt_tokens,
               sum(completion_tokens)::BIGINT AS completion_tokens, sum(cost_usd) AS cost_usd
        FROM vlm_calls GROUP BY ALL ORDER BY 6 DESC, 1, 2 LIMIT 50""",
}
PARTS = 200  # shown of a source, those first that are used for nothing
PARTS_SQL = f"""
    SELECT dataset, kind, name, status, use, why, shape, dtype, num_times FROM source_parts
    QUALIFY row_number() OVER (
        PARTITION BY dataset ORDER BY status <> 'unknown', status <> 'used', use, kind, name) <= {PARTS}
    ORDER BY dataset, status <> 'unknown', status <> 'used', use, kind, name"""


@router.get("/")
def page(visit: Visiting) -> HTMLResponse:
    return visit.page(
        "corpus.html",
        title="Corpus",
        index=visit.index,
        **visit.index.once("corpus", lambda: corpus_facts(visit)),
    )


def corpus_facts(visit: Visit) -> dict[str, Any]:
    """Everything the page shows; counted once per index."""
    index = visit.index
    reader = visit.reader
    empty = {"robot": None, "license": None, "hours": 0.0, **dict.fromkeys(COUNTED, 0)}
    in_index = {d["dataset"]: d for d in index.dicts(COUNTS_SQL)}
    unfinished = dict(index.rows(UNFINISHED_SQL))
    references = sentences(visit.lake)
    datasets = []
    for row in reader.dicts(DATASETS_SQL):
        name = row["dataset"]
        statements = {"unfinished": unfinished.get(name, 0), "references": references.get(name)}
        datasets.append(row | empty | in_index.get(name, {}) | statements)
    questions = {
        d["dataset"]: question(d["dataset"], d["unfinished"], d["ok"])
        for d in datasets
        if d["unfinished"]
    }
    return {
        "datasets": datasets,
        "totals": {column: _total(datasets, column) for column in OF_ALL},
        "questions": questions,
        "grippers": _gripper_rows(reader, [d["dataset"] for d in datasets]),
        "sources": _source_rows(reader),
        "lengths": histogram(index, "duration_s", "s"),
        "steps": histogram(index, "num_steps", "steps", "label_run <> ''"),
        **{name: index.dicts(sql) for name, sql in OF_INDEX.items()},
        **{name: reader.dicts(sql) for name, sql in OF_LAKE.items()},
    }


def _gripper_rows(reader: LakeReader, datasets: list[str]) -> list[dict]:
    """What was found of grippers and hands, a row for each; one with `missing` for a
    dataset where none was seen.
    """
    signals = signals_by_dataset(reader.con)
    lags = lags_by_dataset(reader.con)
    missing = dict(reader.rows("SELECT dataset, detail FROM findings WHERE reason = 'no_gripper'"))
    rows = []
    for dataset in datasets:
        for signal in signals.get(dataset, []):
            row = {"dataset": dataset, "missing": None, "lag": lag(signal, lags.get(dataset, []))}
            rows.append(row | signal_columns(signal))
        if dataset in missing:
            rows.append({"dataset": dataset, "missing": missing[dataset]})
    return rows


def _total(datasets: Iterable[Mapping[str, Any]], column: str) -> float:
    return sum(dataset[column] or 0 for dataset in datasets)


def _source_rows(reader: LakeReader) -> list[dict]:
    """What each source holds, a row for each dataset: all its `parts`, those that are
    `used`, and those that are used for nothing (`unknown`).
    """
    parts = reader.dicts(PARTS_SQL) if has(reader.con, "source_parts") else []
    for part in parts:
        part["form"] = part_form(part["shape"], part["dtype"])
    rows = []
    for dataset, of_dataset in grouped((part["dataset"], part) for part in parts).items():
        by_status = grouped((part["status"], part) for part in of_dataset)
        unused = by_status.get("unknown", [])
        used = by_status.get("used", [])
        rows.append({"dataset": dataset, "parts": of_dataset, "unknown": unused, "used": used})
    return sorted(rows, key=lambda row: (not row["unknown"], row["dataset"]))


def histogram(index: Indexed, column: str, unit: str, condition: str = "true") -> dict[str, Any]:
    """Usable episodes by a column: equal bins up to the 99th percentile, the last one with all above."""
    source = f"FROM episodes WHERE reason = 'ok' AND {column} IS NOT NULL AND {condition}"
    # A few very long episodes would squeeze all others into one bin: the axis ends at the 99th percentile
    facts = f"SELECT count(*), quantile_cont({column}, 0.99), median({column}) {source}"
    n, top, mid = index.rows(facts)[0]
    if not n:
        return {"chart": None}
    bins = BINS
    width = max(top / BINS, 1e-9)
    # Steps are whole numbers: no bin is narrower than one of them
    if unit == "steps":
        bins = min(BINS, int(top) + 1)
        width = max(1.0, (top + 1) / bins)
    of_bin = f"least(floor({column} / {width}), {bins - 1})::INTEGER"
    counts = dict(index.rows(f"SELECT {of_bin}, count(*) {source} GROUP BY 1"))
    bins_by_name = [
        (f"{k * width:.3g} to {(k + 1) * width:.3g} {unit}", counts.get(k, 0)) for k in range(bins)
    ]
    about = f"{n} episodes by {unit}; median {mid:.3g}, 99th percentile {top:.3g}"
    return {"chart": charts.bars(bins_by_name, about), "unit": unit, "median": mid, "top": top}
