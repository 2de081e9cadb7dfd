"""The corpus as a whole: how much there is of what, how far labelled, at what price, and
what is left out.
"""

from collections.abc import Iterable, Mapping
from typing import Any

from fastapi import APIRouter
from fastapi.responses import HTMLResponse

from core.files import queries_of
from explorer.site import Visit, Visiting
from warehouse.lake.lists import LISTS
from warehouse.lake.outcomes import question
from warehouse.lake.references import sentences

router = APIRouter()
COUNTED = ("episodes", "ok", "outcomes_known", "assumed_complete", "frames", "labelled_frames")
OF_ALL = ("hours", "shards", "samples", "cost_usd", *COUNTED)
COUNTS_SQL, DATASETS_SQL = queries_of(__file__)
UNFINISHED_SQL = (
    "SELECT dataset, count(*) FROM review WHERE list_contains(signs, 'looks unfinished') GROUP BY 1"
)
# Lists that the page leads to
LEADS_TO = (
    "lengths",
    "step_counts",
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
    references = sentences(visit.reader)
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
    }


def _total(datasets: Iterable[Mapping[str, Any]], column: str) -> float:
    return sum(dataset[column] or 0 for dataset in datasets)
