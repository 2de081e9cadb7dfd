"""The report: what stands in its tables and sentences, and that its pictures are drawn from what was scored."""

from pathlib import Path

import cv2
import numpy as np
import pytest

from eval.metrics.runs import runs_of
from eval.report import Report, difference_rows, limits, score_rows, worst_episodes, write_report
from eval.scoring.progress import progress_measures
from eval.scoring.scored import Evaluated, ScoredBenchmark, ScoredEpisode, Series

TIME = np.linspace(0, 1, 9)
LABELS = [TIME, TIME**2, TIME**3, TIME * 0.5]


def evaluated(model: str, predictions: list[np.ndarray]) -> Evaluated:
    runs = runs_of(zip(predictions, LABELS, strict=True))
    elapsed = np.tile(TIME, len(LABELS))
    episodes = tuple(
        ScoredEpisode(("toy", str(k)), (f"dataset {'ab'[k % 2]}", "split test_id")) for k in range(len(LABELS))
    )
    scored = ScoredBenchmark(
        "held-out", episodes, progress_measures(runs, elapsed), {"rows": 36}, Series(runs, elapsed)
    )
    return Evaluated(model, scored, scored.scores())


@pytest.fixture(scope="module")
def report() -> Report:
    said = [LABELS[0], LABELS[1] + 0.1, np.where(TIME < 0.5, np.nan, LABELS[2]), 1 - LABELS[3]]
    entries = [evaluated("one|<model>", said), evaluated("clock", [TIME] * 4)]
    jpeg = cv2.imencode(".jpg", np.full((24, 32, 3), 90, np.uint8))[1].tobytes()
    return Report("one|<model>", entries, ("all", "split test_id"), ("A note.",), lambda key: [jpeg] * 3)


def test_rows_carry_intervals_episodes_and_coverage(report: Report) -> None:
    rows = score_rows(report.entries, report.parts)
    assert [(r["slice"], r["model"]) for r in rows] == [
        ("all", "one|<model>"), ("all", "clock"), ("split test_id", "one|<model>"), ("split test_id", "clock"),
    ]  # fmt: skip
    assert (rows[0]["episodes"], rows[0]["coverage"], rows[1]["coverage"]) == (4, "89%", "100%")
    value = report.entries[0].scores["all", "mae"]
    assert rows[0]["mae"] == value.text() == f"{value.value:.3f} ({value.low:.2f}–{value.high:.2f})"


def test_where_it_is_no_better_is_said(report: Report) -> None:
    ours, clock = (e.scores["all", "mae"].value for e in report.entries)
    assert ours > clock
    assert limits(report)[0] == f"held-out, all: no better than clock (mae {ours:.3f} against {clock:.3f}, 4 episodes)."
    (row,) = difference_rows(report)
    assert (row["against"], row["metric"], row["episodes"]) == ("clock", "mae", 4)
    assert row["difference"].startswith(f"{ours - clock:+.3f} (")
    assert float(row["p"]) > 0.05  # four episodes do not tell


def test_the_worst_come_first(report: Report) -> None:
    found = worst_episodes(report.entries[0])
    assert found[0] == (3, pytest.approx(np.abs(1 - LABELS[3] - LABELS[3]).mean()))
    assert [e for _, e in found] == sorted((e for _, e in found), reverse=True)


def test_report_is_written(report: Report, tmp_path: Path) -> None:
    page = write_report(tmp_path, report)
    text, html = (tmp_path / "report.md").read_text(), page.read_text()
    for name in ("curves.png", "calibration.png", "datasets.png", "worst.png"):
        picture = cv2.imread(str(tmp_path / name))
        assert picture is not None
        assert picture.std() > 5  # something is drawn
        assert f"({name})" in text
        assert f"<img src='{name}'" in html
    assert "one|&lt;model&gt;" in html
    assert "<model>" not in html
    assert "| held-out | all | one\\|<model> |" in text
    assert "A note." in text
    assert limits(report)[0] in text
