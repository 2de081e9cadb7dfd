"""Figures in the text of pages are those that the measuring scripts stored."""

from pathlib import Path

import make_stated
import pytest

from benchmarks.laptop import stated
from core.paths import ROOT


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
