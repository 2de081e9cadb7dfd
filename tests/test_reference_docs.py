"""The pages that are made from the registry and the reason codes are up to date, and say what the code does."""

import ast
import re
from collections.abc import Iterator
from itertools import chain

import make_reference
import pytest

from core.paths import ROOT
from ingest.formats import FORMAT_NAMES
from ingest.reasons import REASONS
from tests.kits.code import FILES

PAGES = [
    "datasets.md", "quarantine.md", "cli.md", "configuration.md", "tables.md", "recipes.md", "partial_failures.md",
]  # fmt: skip


@pytest.mark.parametrize("name", PAGES)
def test_pages_are_up_to_date(name):
    page = make_reference.PAGES[name]()
    assert (ROOT / "docs" / name).read_text() == page, (
        f"docs/{name} is old: run `{make_reference.COMMAND}`"
    )


def items_of(page: str) -> dict[str, str]:
    """What a page says of each item of its lists."""
    items = re.findall(r"^- `([^`=]+)[^`]*`(.*)$", page, re.MULTILINE)
    return {name: description.strip(" :") for name, description in items}


def test_environment_variables_are_those_that_the_code_reads():
    read = set(
        chain.from_iterable(
            re.findall(r"\bPROCCORPUS_[A-Z_]+\b", path.read_text()) for path in FILES
        )
    )
    items = items_of(make_reference.PAGES["configuration.md"]())
    assert {name for name in items if name.startswith("PROCCORPUS_")} == read


def test_every_reason_is_listed_by_its_severity():
    page = make_reference.quarantine_page()
    assert set(items_of(page)) == set(REASONS)
    by_level = {text.split("\n")[0]: items_of(text) for text in page.split("## ")[1:]}
    assert "no_task" in by_level["Warning"]
    assert "too_short" in by_level["Unusable"]
    assert "undecodable_video" in by_level["Unusable or warning"]


def literal_findings() -> Iterator[tuple[str, str, str]]:
    """(where, reason, severity) of the findings whose reason and severity stand in the code as they are."""
    for path in sorted(
        chain.from_iterable(
            (ROOT / room).rglob("*.py") for room in ("ingest", "annotate", "pipeline")
        )
    ):
        for node in ast.walk(ast.parse(path.read_text())):
            if (
                not isinstance(node, ast.Call)
                or not node.args
                or not isinstance(node.args[0], ast.Constant)
            ):
                continue
            if isinstance(node.func, ast.Attribute):
                name = node.func.attr
            else:
                name = getattr(node.func, "id", "")
            severities = [*node.args[2:3], *(k.value for k in node.keywords if k.arg == "severity")]
            if name in ("warn", "unusable"):
                severity: object = "warning" if name == "warn" else name
            elif name == "Finding":
                if not severities:
                    severity = "unusable"
                else:
                    severity = getattr(severities[0], "value", None)
            else:
                continue
            if node.args[0].value in REASONS and isinstance(severity, str):
                yield f"{path.relative_to(ROOT)}:{node.lineno}", str(node.args[0].value), severity


def test_severities_are_those_of_the_code():
    findings = list(literal_findings())
    assert len(findings) > 20
    wrong = [f for f in findings if REASONS[f[1]].severity not in ("", f[2])]
    assert not wrong, "ingest/reasons.py says otherwise"


def test_formats_page_has_each_format():
    page = (ROOT / "docs" / "formats.md").read_text()
    headed = set(re.findall(r"^## .*\(`(\w+)`\)$", page, re.M))
    assert headed == set(FORMAT_NAMES)
