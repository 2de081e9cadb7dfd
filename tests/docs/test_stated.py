"""Figures in the text of pages are those that the measuring scripts stored."""

from pathlib import Path

import make_stated
import pytest

from benchmarks import explorer, judging, shipped
from benchmarks.laptop import seeds_of, stated
from core.paths import ROOT
from tests.kits.made_corpus import Made


@pytest.mark.parametrize("page", make_stated.PAGES)
def test_a_page_says_what_was_measured(page: str) -> None:
    text = (ROOT / page).read_text()
    assert make_stated.MARKED.search(text)
    assert make_stated.filled(text) == text, "python docs/make_stated.py writes the figures anew"


def test_another_figure_is_another_text(monkeypatch: pytest.MonkeyPatch) -> None:
    readme = Path(ROOT / "README.md").read_text()
    changed_figures = {name: f"{value}9" for name, value in make_stated.figures().items()}
    monkeypatch.setattr(make_stated, "figures", lambda: changed_figures)
    changed = make_stated.filled(readme)
    assert changed.count("9<!--=-->") == len(make_stated.MARKED.findall(readme)) > 10


def test_what_the_benchmark_of_laptop_stores_is_what_the_pages_name() -> None:
    columns = dict.fromkeys(("mae", "clock", "mae_truth", "clock_truth"), 0.1)
    runs = [columns | {"mae": 0.2}, columns | {"mae": 0.4}]
    stated_figures = stated({"test_id": runs, "test_ood": runs})
    assert stated_figures.keys() == make_stated.stored("laptop")["mae"].keys()
    assert stated_figures["labels"] == pytest.approx(0.3)
    assert seeds_of(runs)["mae"] == [0.2, 0.4]
    assert make_stated.by_seed([0.2, 0.4]) == "0.300 (0.200, 0.400)"
    assert make_stated.by_seed([0.2, 0.2]) == "0.200"


def test_what_the_other_scripts_store_is_what_the_pages_name(own: Made, tmp_path: Path) -> None:
    """Each with the columns that the stored file has, and figures that follow from what was measured."""
    pages = explorer.stated([{"page": "a", "p95_ms": 120.4}, {"page": "b", "p95_ms": 900.0}])
    assert pages == {"pages": 2, "quick": 1, "within_ms": 120}
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
