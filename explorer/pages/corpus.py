"""The corpus as a whole: how much there is of what, how far labelled, at what price, and
what is left out.
"""

from collections.abc import Iterable, Mapping
from typing import Any

from fastapi import APIRouter
from fastapi.responses import HTMLResponse

from core.files import queries_of
from explorer import charts
from explorer.index import Indexed
from explorer.site import Visit, Visiting
from warehouse.lake.lists import LISTS
from warehouse.lake.outcomes import question
from warehouse.lake.references import sentences

router = APIRouter()
BINS = 30
COUNTED = ("episodes", "ok", "outcomes_known", "assumed_complete", "frames", "labelled_frames")
OF_ALL = ("hours", "shards", "samples", "cost_usd", *COUNTED)
COUNTS_SQL, DATASETS_SQL = queries_of(__file__)
UNFINISHED_SQL = (
    "SELECT dataset, count(*) FROM review WHERE list_contains(signs, 'looks unfinished') GROUP BY 1"
)
# Lists that the page leads to
LEADS_TO = (
    "quarantine_reasons",
    "fault_reasons",
    "source_parts",
    "signals",
    "licences",
    "labels_in_force",
    "commonest_steps",
    "demonstrations",
    "requests",
)


@router.get("/")
def page(visit: Visiting) -> HTMLResponse:
    return visit.page(
        "corpus.html",
        title="Corpus",
        index=visit.index,
        lists={name: LISTS[name] for name in LEADS_TO},
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
        "lengths": histogram(index, "duration_s", "s"),
        "steps": histogram(index, "num_steps", "steps", "label_run <> ''"),
    }


def _total(datasets: Iterable[Mapping[str, Any]], column: str) -> float:
    return sum(dataset[column] or 0 for dataset in datasets)


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
