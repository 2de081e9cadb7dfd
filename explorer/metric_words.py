"""What each metric means, in the sentence of docs/metrics.md, which is part of an installed package, too."""

import re
from functools import cache
from pathlib import Path
from typing import NamedTuple

from core.paths import ROOT

PAGES = (Path(__file__).parent / "metrics.md", ROOT / "docs" / "metrics.md")  # installed, and in a checkout
HEADING = re.compile(r"^## (.+)$")
ROW = re.compile(r"^\| (`[^|]+`)[^|]*\| ([^|]+) \|")  # of a table: names in code, then what they are


class MetricWords(NamedTuple):
    """A metric in a sentence, and the address in the documentation of the section that has it."""

    sentence: str
    address: str


@cache
def metric_words() -> dict[str, MetricWords]:
    """By the name of a metric; the first section that has it counts. A name that begins with @ is an ending of the one
    before it."""
    page = next(path for path in PAGES if path.is_file())
    words: dict[str, MetricWords] = {}
    address = "/docs/metrics.html"
    for line in page.read_text().splitlines():
        if heading := HEADING.match(line):
            address = f"/docs/metrics.html#{_anchor(heading[1])}"
        if row := ROW.match(line):
            sentence = row[2].replace("`", "").replace("*", "").strip()
            for name in _names(row[1]):
                words.setdefault(name, MetricWords(sentence, address))
    return words


def _names(cell: str) -> list[str]:
    names: list[str] = []
    for name in re.findall(r"`([^`]+)`", cell):
        names.append(names[-1].partition("@")[0] + name if name.startswith("@") else name)
    return names


def _anchor(heading: str) -> str:
    """As the site makes them of headings."""
    plain = re.sub(r"[^\w\- ]", "", heading).strip().lower()
    return re.sub(r"[\s-]+", "-", plain)
