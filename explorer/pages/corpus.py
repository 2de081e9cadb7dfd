"""The corpus as a whole: how much there is of what, how far labelled, at what price, and what is left out."""

from typing import Any

from fastapi import APIRouter
from fastapi.responses import HTMLResponse

from annotate.signal_report import columns, lag
from core.paths import Workspace
from explorer import charts
from explorer.access import LakeReader
from explorer.index import Indexed
from explorer.site import Visiting
from warehouse.lake import LakeConnection
from warehouse.lake.outcomes import question
from warehouse.lake.references import sentences
from warehouse.lake.signals import lags_by_dataset, signals_by_dataset

router = APIRouter()
BINS = 30
REASONS = 30  # of the quarantine, the commonest


@router.get("/")
def page(at: Visiting) -> HTMLResponse:
    index = at.index
    found = index.once("corpus", lambda: corpus_facts(index, at.reader, at.explorer.space))
    return at.page("corpus.html", title="Corpus", index=index, **found)


def corpus_facts(index: Indexed, reader: LakeReader, space: Workspace) -> dict[str, Any]:
    """Everything the page shows; counted once per index."""
    datasets = index.dicts(
        "SELECT dataset::VARCHAR AS dataset, any_value(robot)::VARCHAR AS robot, any_value(license)::VARCHAR AS"
        " license,"
        " count(*) AS episodes, count(*) FILTER (reason = 'ok') AS ok,"
        " count(*) FILTER (reason = 'ok' AND success <> 'unknown') AS outcomes_known,"
        " count(*) FILTER (reason = 'ok' AND end_by = 'assumed') AS assumed_complete,"
        " coalesce(sum(num_frames) FILTER (reason = 'ok'), 0)::BIGINT AS frames,"
        " coalesce(sum(duration_s) FILTER (reason = 'ok'), 0) / 3600 AS hours,"
        " coalesce(sum(num_frames) FILTER (reason = 'ok' AND label_run <> '' AND named), 0)::BIGINT AS labelled_frames"
        " FROM episodes GROUP BY 1 ORDER BY 1"
    )
    nothing = dict.fromkeys(("episodes", "ok", "outcomes_known", "assumed_complete", "frames", "labelled_frames"), 0)
    empty = {"robot": None, "license": None, "hours": 0.0, **nothing}
    # Datasets come from the lake: one without any listed episode is shown, too
    in_index = {d["dataset"]: d for d in datasets}
    rows = reader.dicts("SELECT dataset, title, role FROM datasets ORDER BY 1")
    cost = _by_dataset(reader, "SELECT dataset, sum(cost_usd) FROM vlm_calls GROUP BY 1")
    labels = dict(reader.rows("SELECT dataset, labels FROM coverage"))
    references = sentences(LakeConnection(space, reader.con))
    unfinished = dict(
        index.rows("SELECT dataset, count(*) FROM review WHERE list_contains(why, 'looks unfinished') GROUP BY 1")
    )
    shards = {r[0]: r[1:] for r in reader.rows("SELECT dataset, count(*), sum(samples) FROM shards GROUP BY 1")}
    datasets = [
        {"dataset": r["dataset"], **empty}
        | in_index.get(r["dataset"], {})
        | {"title": r["title"], "role": r["role"], "cost_usd": cost.get(r["dataset"]), "labels": labels[r["dataset"]]}
        | {"unfinished": unfinished.get(r["dataset"], 0), "references": references.get(r["dataset"])}
        | dict(zip(("shards", "samples"), shards.get(r["dataset"], (0, 0)), strict=True))
        for r in rows
    ]
    totals = {k: sum(d[k] or 0 for d in datasets) for k in ("hours", "shards", "samples", "cost_usd", *nothing)}
    return {
        "datasets": datasets,
        "totals": totals,
        "questions": {
            d["dataset"]: question(d["dataset"], d["unfinished"], d["ok"]) for d in datasets if d["unfinished"]
        },
        "grippers": _grippers(reader, [d["dataset"] for d in datasets]),
        "licences": _licences(datasets),
        "lengths": histogram(index, "duration_s", "s"),
        "steps": histogram(index, "num_steps", "steps", "label_run <> ''"),
        "commonest": index.dicts(
            "SELECT name, count(*) AS episodes FROM step_rows JOIN steps"
            " USING (step_id) GROUP BY 1"
            " ORDER BY 2 DESC, 1 LIMIT 12"
        ),
        "quarantine": index.dicts(
            f"SELECT dataset::VARCHAR AS dataset, reason::VARCHAR AS reason, count(*) AS episodes FROM episodes"
            f" WHERE reason <> 'ok' GROUP BY ALL ORDER BY 3 DESC, 1, 2 LIMIT {REASONS}"
        ),
        "whole": reader.dicts(
            "SELECT dataset, reason, detail FROM findings WHERE episode_index IS NULL AND severity = 'unusable'"
            " ORDER BY 1"
        ),
        "labels": index.dicts(
            "SELECT annotator::VARCHAR AS annotator, label_run::VARCHAR AS label_run, count(*) AS episodes FROM"
            " episodes"
            " WHERE reason = 'ok' GROUP BY ALL ORDER BY 3 DESC, 1, 2"
        ),
        "costs": reader.dicts(
            "SELECT stage, model, count(*) AS calls, sum(prompt_tokens)::BIGINT AS prompt_tokens,"
            " sum(completion_tokens)::BIGINT AS completion_tokens, sum(cost_usd) AS cost_usd"
            " FROM vlm_calls GROUP BY ALL ORDER BY 6 DESC, 1, 2 LIMIT 50"
        ),
    }


def _by_dataset(reader: LakeReader, sql: str) -> dict[str, float]:
    return dict(reader.rows(sql))


def _grippers(reader: LakeReader, datasets: list[str]) -> list[dict]:
    """What was found of grippers and hands, a row for each; one with `missing` for a dataset where none was seen."""
    signals, lags = signals_by_dataset(reader.con), lags_by_dataset(reader.con)
    missing = dict(reader.rows("SELECT dataset, detail FROM findings WHERE reason = 'no_gripper'"))
    rows = []
    for dataset in datasets:
        of_dataset = lags.get(dataset, [])
        for signal in signals.get(dataset, []):
            rows.append({"dataset": dataset, "missing": None, "lag": lag(signal, of_dataset), **columns(signal)})
        if dataset in missing:
            rows.append({"dataset": dataset, "missing": missing[dataset]})
    return rows


def _licences(datasets: list[dict]) -> list[dict]:
    """Hours and episodes of usable episodes by licence."""
    sums: dict[str, dict] = {}
    for d in datasets:
        of_licence = sums.setdefault(d["license"] or "not stated", {"hours": 0.0, "ok": 0, "datasets": 0})
        of_licence["hours"] += d["hours"]
        of_licence["ok"] += d["ok"]
        of_licence["datasets"] += 1
    by_hours = sorted(sums.items(), key=lambda item: -item[1]["hours"])
    return [{"license": licence, **of_licence} for licence, of_licence in by_hours]


def histogram(index: Indexed, column: str, unit: str, where: str = "true") -> dict[str, Any]:
    """Usable episodes by a column: equal bins up to the 99th percentile, the last one with all above."""
    condition = f"reason = 'ok' AND {column} IS NOT NULL AND {where}"
    # A few very long episodes would squeeze all others into one bin: the axis ends at the 99th percentile
    n, top, low, mid = index.rows(
        f"SELECT count(*), quantile_cont({column}, 0.99), min({column}), median({column}) FROM episodes WHERE"
        f" {condition}"
    )[0]
    if not n:
        return {"chart": None, "n": 0, "unit": unit}
    # Steps are whole numbers: no bin is narrower than one of them
    bins = min(BINS, int(top) + 1) if unit == "steps" else BINS
    width = max((top + (1 if unit == "steps" else 0)) / bins, 1e-9)
    if unit == "steps":
        width = max(1.0, width)
    counts = dict(
        index.rows(
            f"SELECT least(floor({column} / {width}), {bins - 1})::INTEGER, count(*) FROM episodes WHERE"
            f" {condition} GROUP BY 1"
        )
    )
    named = [(f"{k * width:.3g} to {(k + 1) * width:.3g} {unit}", counts.get(k, 0)) for k in range(bins)]
    about = f"{n} episodes by {unit}; median {mid:.3g}, 99th percentile {top:.3g}"
    return {"chart": charts.bars(named, about), "n": n, "unit": unit, "median": mid, "top": top, "low": low}
