"""The pages that are made from the registry and the reason codes are up to date, and say what the code does."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import make_reference
import pytest

from core.paths import ROOT
from ingest.formats import FORMAT_NAMES
from ingest.reasons import REASONS
from ingest.registry import BUILT_IN, load_registry
from tests.kits.code import FILES

PAGES = ["datasets.md", "quarantine.md", "cli.md", "configuration.md", "tables.md", "recipes.md"]
GENERATED = {*PAGES, "dependencies.md"}
MADE = {*GENERATED, "samples.md"}  # this one in part
WIDTH = 120  # of prose; tables and pictures are as wide as they have to be
CODE_WIDTH = 100  # what the site shows without scrolling
PAGE_WORDS, ALL_WORDS = 1500, 46_500


@pytest.mark.parametrize("name", PAGES)
def test_pages_are_up_to_date(name: str) -> None:
    page = make_reference.PAGES[name]()
    assert (ROOT / "docs" / name).read_text() == page, f"docs/{name} is old: run `{make_reference.COMMAND}`"


def rows_of(page: str) -> dict[str, list[str]]:
    """Rows of a page's tables by their first cell."""
    lines = [[c.strip() for c in line.strip("|").split(" | ")] for line in page.splitlines() if line.startswith("| ")]
    return {line[0].strip("` "): line for line in lines if line[0] not in ("id", "code", "---")}


def test_environment_variables_are_those_that_the_code_reads() -> None:
    read = {name for path in FILES for name in re.findall(r"\bPROCCORPUS_[A-Z_]+\b", path.read_text())}
    rows = rows_of(make_reference.PAGES["configuration.md"]())
    assert {name for name in rows if name.startswith("PROCCORPUS_")} == read


def test_every_dataset_is_a_row() -> None:
    rows, entries = rows_of(make_reference.datasets_page()), load_registry([BUILT_IN])
    assert list(rows) != []
    assert set(rows) == set(entries)
    assert {len(r) for r in rows.values()} == {10}
    assert rows["language_table"][6] == "442,226"
    assert rows["rh20t"][5:7] == ["`data/rh20t`", ""]
    assert all((ROOT / r[4].strip("`")).is_file() for r in rows.values())


def test_what_each_row_is_proven_on() -> None:
    entries = load_registry([BUILT_IN])
    assert set(make_reference.PROOF_BY_FORMAT) == set(FORMAT_NAMES)
    levels = {n: r[9].split(";")[0] for n, r in rows_of(make_reference.datasets_page()).items()}
    assert {n for n, level in levels.items() if level == make_reference.DATASET} == {"sim_short", "sim_long"}
    generated = {n for n, level in levels.items() if level == make_reference.GENERATED}
    assert generated == {"agibot_alpha", "agibot_beta", "rh20t", "robomind_v2", "table30"}
    assert {entries[n].format for n, level in levels.items() if level == make_reference.FORMAT} == {"lerobot", "rlds"}


def test_every_reason_is_a_row() -> None:
    rows = rows_of(make_reference.quarantine_page())
    assert list(rows) == list(REASONS)
    assert rows["no_task"][3] == "warning"
    assert rows["too_short"][3] == "unusable"
    assert rows["undecodable_video"][3] == "unusable or warning"
    assert set(REASONS) >= make_reference.UNUSABLE | make_reference.WARNING


def literal_findings() -> Iterator[tuple[str, str, str]]:
    """(where, reason, severity) of the findings whose reason and severity stand in the code as they are."""
    for path in sorted(p for room in ("ingest", "annotate", "pipeline") for p in (ROOT / room).rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if not isinstance(node, ast.Call) or not node.args or not isinstance(node.args[0], ast.Constant):
                continue
            name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
            given = [*node.args[2:3], *(k.value for k in node.keywords if k.arg == "severity")]
            if name in ("warn", "unusable"):
                severity: object = "warning" if name == "warn" else name
            elif name == "Finding":
                severity = "unusable" if not given else getattr(given[0], "value", None)
            else:
                continue
            if node.args[0].value in REASONS and isinstance(severity, str):
                yield f"{path.relative_to(ROOT)}:{node.lineno}", str(node.args[0].value), severity


def test_severities_are_those_of_the_code() -> None:
    found = list(literal_findings())
    assert len(found) > 20
    wrong = [f for f in found if f[2] not in make_reference.severity(f[1])]
    assert not wrong, "docs/make_reference.py says otherwise"


def test_formats_page_has_each_format() -> None:
    page = (ROOT / "docs" / "formats.md").read_text()
    headed = set(re.findall(r"^## .*\(`(\w+)`\)$", page, re.M))
    assert headed == set(FORMAT_NAMES)


@pytest.mark.parametrize("page", sorted((ROOT / "docs").glob("*.md")), ids=lambda page: page.name)
def test_prose_is_not_wide(page: Path) -> None:
    if page.name not in MADE:
        prose = re.sub(r"^( *)```.*?^\1```$", "", page.read_text(), flags=re.M | re.S).splitlines()
        wide = [line for line in prose if len(line) > WIDTH and not line.lstrip().startswith(("|", "![", "<"))]
        assert [line for line in wide if not line.startswith("    ")] == []


HAND_WRITTEN = [*(p for p in sorted((ROOT / "docs").glob("*.md")) if p.name not in GENERATED), ROOT / "README.md"]


@pytest.mark.parametrize("page", HAND_WRITTEN, ids=lambda page: page.name)
def test_code_is_not_cut(page: Path) -> None:
    code = "\n".join(re.findall(r"^ *```.*?^ *```$", page.read_text(), flags=re.M | re.S))
    assert [line for line in code.splitlines() if len(line) > CODE_WIDTH] == []


@pytest.mark.parametrize("page", HAND_WRITTEN, ids=lambda page: page.name)
def test_tables_are_whole_and_pictures_have_captions(page: Path) -> None:
    lines = re.sub(r"^( *)```.*?^\1```$", "", page.read_text(), flags=re.M | re.S).splitlines()
    first_rows = [i for i, line in enumerate(lines) if line.startswith("|") and not lines[i - 1].startswith("|")]
    assert [lines[i] for i in first_rows if not re.fullmatch(r"\|[\s:|-]+\|", lines[i + 1])] == []
    pictures = [i for i, line in enumerate(lines) if line.startswith("![")]
    assert [lines[i] for i in pictures if not lines[i + 2].startswith("*")] == []


def words_of(page: str) -> int:
    """Words that a reader meets outside code blocks, comments and addresses of links."""
    for pattern, by in ((r"^```.*?^```", ""), (r"<!--.*?-->", ""), (r"\]\([^)]*\)", "]")):
        page = re.sub(pattern, by, page, flags=re.M | re.S)
    return len(re.findall(r"[A-Za-z0-9][^\s|]*", page))


def test_pages_are_short() -> None:
    words = {p.name: words_of(p.read_text()) for p in HAND_WRITTEN}
    assert {name: n for name, n in words.items() if n > PAGE_WORDS} == {}
    assert sum(words.values()) <= ALL_WORDS, sorted(words.items(), key=lambda item: -item[1])[:12]
