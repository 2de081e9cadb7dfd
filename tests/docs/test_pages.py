"""What the pages say is there, and they stay short. `make docs` runs their blocks."""

import re
from itertools import chain
from pathlib import Path

import make_stated
import pytest

from benchmarks import explorer, judging, shipped
from benchmarks.harness import Figure
from benchmarks.laptop import seeds_of, stated
from core.paths import ROOT
from tests.docs.test_docs_pages import ONLY_LOOKED_UP, look_at
from tests.kits.cli_kit import look_up
from tests.kits.code import FILES
from tests.kits.pages_kit import FENCE, blocks, inline_commands, words

DOCS = sorted((ROOT / "docs").glob("*.md"))
TEXTS = [
    *DOCS,
    *(ROOT / f"{name}.md" for name in ("README", "CONTRIBUTING", "CHANGELOG", "SECURITY")),
]
GENERATED = {p for p in DOCS if p.read_text().startswith("<!-- Made by")}
PAGES = 30
A_PAGE = 1800
ALL = 35_563  # but the table of findings, whose rows are data
REFERENCE = 20_155


def anchors(page: Path) -> set[str]:
    """As GitHub and the site make them of headings."""
    heads = re.findall(r"^#+ (.+)$", FENCE.sub("", page.read_text()), re.MULTILINE)
    plain = [
        re.sub(r"[^\w\- ]", "", re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", head).lower())
        for head in heads
    ]
    return {text.strip().replace(" ", "-") for text in plain}


def test_links_lead_to_what_is_there():
    wrong = []
    for page in TEXTS:
        for link in re.findall(r"\]\(([^)\s]+)\)", FENCE.sub("", page.read_text())):
            name, _, anchor = link.partition("#")
            target = page.parent / name if name else page
            if "://" in link:
                continue
            if not target.exists() or (
                anchor and target.suffix == ".md" and anchor not in anchors(target)
            ):
                wrong.append(f"{page.name}: {link}")
    assert wrong == []


def test_files_that_are_named_are_there():
    code = [
        p
        for p in (*FILES, *(ROOT / "tests").rglob("*.py"), *(ROOT / "benchmarks").rglob("*.py"))
        if p.is_file()
    ]
    wrong: list[str] = []
    for page in {*TEXTS, *code, ROOT / "Makefile", ROOT / "deploy/create.sh"}:
        if page.name not in ("CHANGELOG.md", Path(__file__).name):
            names = re.findall(r"\b(?:docs/[\w-]+\.md|tests/[\w/]+\.py)\b", page.read_text())
            absent = [name for name in names if not (ROOT / name).exists()]
            wrong += [f"{page.relative_to(ROOT)}: {name}" for name in absent]
    assert wrong == []


def test_places_in_the_architecture_page_are_there():
    page = (ROOT / "docs" / "architecture.md").read_text()
    places = re.findall(r"((?:`\w+`(?: and |, )?)+) in `(\w+/[\w/]+\.py)`", page)
    assert len(places) > 15
    for names, path in places:
        code = (ROOT / path).read_text()
        architecture_names = re.findall(r"\w+", names.replace(" and ", " "))
        assert [name for name in architecture_names if not re.search(rf"\b{name}\b", code)] == [], (
            path
        )


@pytest.mark.slow
def test_commands_are_ours():
    for page in (*DOCS, ROOT / "README.md", ROOT / "CONTRIBUTING.md"):
        for command in inline_commands(page):
            command_words = words(re.sub(r"[<>]", "", command))
            is_ours = command_words[0].removeprefix(".venv/bin/") == "proccorpus"
            look_up(command_words[1:], whole=False) if is_ours else look_at(command_words)
        for command in list(
            chain.from_iterable(b.commands for b in blocks(page) if b.kind in ("sh", "console"))
        ):
            command_words = words(re.split(r"\s+# ", command)[0])
            if "proccorpus" in command_words[0] and not re.search(r"[|<>;&$]", command):
                look_up(command_words[1:], whole=False)
    assert ONLY_LOOKED_UP


def test_messages_that_recovery_explains_are_ones_we_have():
    code = " ".join(" ".join(p.read_text() for p in (*FILES, ROOT / "Makefile")).split())
    code = re.sub(r'" f?"', "", code)  # a text over several lines is one
    quoted = re.findall(
        r"^\| `([^`]+ [^`]+)`", (ROOT / "docs/recovery.md").read_text(), re.MULTILINE
    )
    assert len(quoted) > 8
    assert [
        text for text in quoted if not all(part.strip(" :") in code for part in text.split("..."))
    ] == []


def test_pages_are_few_and_short():
    # Words have a letter or a digit: the marks of lists and tables do not count
    by_page = {p: len(re.findall(r"\S*\w\S*", p.read_text())) for p in DOCS}
    by_hand = {p.name: n for p, n in by_page.items() if p not in GENERATED}
    assert len(by_hand) <= PAGES, sorted(by_hand)
    assert {name: n for name, n in by_hand.items() if n > A_PAGE and name != "findings.md"} == {}
    assert sum(n for name, n in by_hand.items() if name != "findings.md") <= ALL, by_hand
    assert sum(n for p, n in by_page.items() if p in GENERATED) <= REFERENCE


def test_lines_fit_and_tables_are_whole():
    wrong = []
    for page in (p for p in TEXTS if p not in GENERATED and p.name != "CHANGELOG.md"):
        code = "\n".join(m[0] for m in FENCE.finditer(page.read_text())).splitlines()
        wrong += [f"{page.name}: {line}" for line in code if len(line) > 100]
        lines = FENCE.sub("", page.read_text()).splitlines()
        wrong += [
            f"{page.name}: {x}"
            for x in lines
            if len(x) > 120 and not x.lstrip().startswith(("|", "![", "<"))
        ]
        for i, line in enumerate(lines):
            is_head = line.startswith("|") and not lines[i - 1].startswith("|")
            if is_head and not re.fullmatch(r"\|[\s:|-]+\|", lines[i + 1]):
                wrong.append(f"{page.name}: a table without a head: {line}")
            if line.startswith("![") and not lines[i + 2].startswith("*"):
                wrong.append(f"{page.name}: a picture without a caption: {line}")
    assert wrong == []


@pytest.mark.parametrize("page", make_stated.PAGES)
def test_a_page_says_what_was_measured(page):
    text = (ROOT / page).read_text()
    assert make_stated.MARKED.search(text)
    assert make_stated.filled(text) == text, "python docs/make_stated.py writes the figures anew"


def test_another_figure_is_another_text(monkeypatch):
    readme = Path(ROOT / "README.md").read_text()
    changed_figures = {name: f"{value}9" for name, value in make_stated.figures().items()}
    monkeypatch.setattr(make_stated, "figures", lambda: changed_figures)
    changed = make_stated.filled(readme)
    assert changed.count("9<!--=-->") == len(make_stated.MARKED.findall(readme)) > 10


def test_what_the_benchmark_of_laptop_stores_is_what_the_pages_name():
    columns = dict.fromkeys(("mae", "clock", "mae_truth", "clock_truth"), 0.1)
    runs = [columns | {"mae": 0.2}, columns | {"mae": 0.4}]
    stated_figures = stated({"test_id": runs, "test_ood": runs})
    assert stated_figures.keys() == make_stated.stored("laptop")["mae"].keys()
    assert stated_figures["labels"] == pytest.approx(0.3)
    assert seeds_of(runs)["mae"] == [0.2, 0.4]
    assert make_stated.by_seed([0.2, 0.4]) == "0.300 (0.200, 0.400)"
    assert make_stated.by_seed([0.2, 0.2]) == "0.200"


def test_what_the_other_scripts_store_is_what_the_pages_name(own, tmp_path):
    pages = explorer.stated([Figure("a", 120.4), Figure("b", 900.0)])
    assert (pages["pages"], pages["quick"], pages["within_ms"]) == (2, 1, 120)
    assert pages.keys() <= make_stated.stored("explorer").keys()

    cpu = {"this": [0.04, 0.06], "the other": [0.5]}
    took = {"this": [0.2, 0.4], "the other": [3.0]}
    figures = judging.stated(cpu, took, [0.01])
    assert (figures["ratio"], figures["checkouts"]["this"]["ten_s"]) == (10.0, 3.0)
    assert figures.keys() <= make_stated.stored("judging").keys()

    (tmp_path / "environment").mkdir()
    (tmp_path / "environment" / "one").write_bytes(bytes(300_000_000))
    counts = shipped.measured(own.space, tmp_path / "environment")
    assert (counts["install_gb"], counts["episodes"]) == (0.3, 5)
    assert counts.keys() == make_stated.stored("shipped").keys()
