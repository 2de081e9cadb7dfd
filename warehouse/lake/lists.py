"""Lists for people: each one query over the lake, with a title and the question that it answers.

`proccorpus show NAME` prints a list, the explorer shows it at /t/NAME. Each is a block of lists.sql: name and title,
question, what is said where it has no row, query. A table or view without a block is listed as it is.
"""

from pathlib import Path
from string import Template
from typing import NamedTuple

from core.metrics import METRICS
from core.names import FORMER_REASONS
from ingest.reasons import REASONS, reason_of
from warehouse.lake.connection import literal


class ListView(NamedTuple):
    """`empty`: what is said where it has no row."""

    title: str
    question: str
    empty: str
    sql: str


def _lists() -> dict[str, ListView]:
    codes = (*REASONS, *FORMER_REASONS)
    remedies = (f"({literal(code)}, {literal(reason_of(code).remedy)})" for code in codes)
    text = Template(Path(__file__).with_suffix(".sql").read_text())
    lists = {}
    lower = ", ".join(literal(metric.name) for metric in METRICS if metric.lower_is_better)
    for block in text.substitute(REMEDIES=", ".join(remedies), LOWER=lower).split("\n\n"):
        head, question, empty, sql = block.split("\n", 3)
        name, title = head.removeprefix("-- ").split(": ")
        lists[name] = ListView(title, question.removeprefix("-- "), empty.removeprefix("-- "), sql)
    return lists


LISTS = _lists()


def list_named(name: str) -> ListView:
    """The list of a name; of a table or view without one all its rows."""
    return LISTS.get(name) or ListView(name, "", "No rows.", f"FROM {name}")
