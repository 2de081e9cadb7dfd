"""RBM-EVAL's and RoboReward's layouts as benchmarks: what is read, shown, refused and scored."""

import json
from pathlib import Path

import pytest

from core.paths import Workspace
from eval.benchmarks.options import EvaluationOptions
from eval.benchmarks.question import BenchmarkError, Question
from eval.benchmarks.run import evaluate_benchmark
from eval.predictions import PredictionLine
from eval.runners.start import RunnerConfig
from eval.scoring.files import score_predictions
from eval.scoring.scored import ALL
from tests.kits.bench_kit import questions_of
from tests.kits.graded_kit import RBM_ROWS, make_rbm, make_roboreward
from tests.kits.laptop_kit import make_checkpoint
from warehouse.lake import Lake


@pytest.fixture(scope="module")
def rbm(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_rbm(tmp_path_factory.mktemp("rbm"))


@pytest.fixture(scope="module")
def rewards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_roboreward(tmp_path_factory.mktemp("roboreward"))


def lines(questions: list[Question], values: list[float | None]) -> list[PredictionLine]:
    return [
        PredictionLine(f"line {k}", q.meta_data(), "", v)
        for k, (q, v) in enumerate(zip(questions, values, strict=True))
    ]


# Reading


def test_videos_that_are_missing_or_damaged_cost_their_own_question(tmp_path: Path) -> None:
    root = make_rbm(tmp_path / "r")
    (root / "train" / RBM_ROWS[0][0]).unlink()
    (root / "train" / RBM_ROWS[1][0]).write_bytes(b"no video")
    questions = questions_of("rbm-eval", str(root), image_root=tmp_path / "f")
    with pytest.raises(BenchmarkError, match="No such file"):
        questions[0].pictures[0].read()
    assert questions[1].pictures[0].path.name == "b.mp4"
    assert len(questions[2].pictures) == 4
    for name, *_ in RBM_ROWS[1:]:
        (root / "train" / name).unlink()
    with pytest.raises(BenchmarkError, match=r"none of 5 videos of .* is there, such as train/usc/a\.mp4"):
        questions_of("rbm-eval", str(root), image_root=tmp_path / "f")


# Scoring


def test_points_are_compared_as_whole_ones(rewards: Path, tmp_path: Path) -> None:
    questions = questions_of("roboreward", str(rewards), image_root=tmp_path)
    scores = score_predictions("roboreward", lines(questions, [0.95, 0.5, None])).scores()
    assert scores[ALL, "points_accuracy"].value == pytest.approx(1 / 3)
    assert scores[ALL, "points_mae"].value == pytest.approx((0 + 1 + 4) / 3)


def test_a_model_is_evaluated_beside_the_clock(rbm: Path, tmp_path: Path) -> None:
    lake = Lake(Workspace(tmp_path / "w"))
    folder = make_checkpoint(tmp_path / "bars")
    config = EvaluationOptions(benchmark="rbm-eval", data=str(rbm))
    found = evaluate_benchmark(lake, config, RunnerConfig("bars", folder=folder))
    assert [e.model for e in found.entries][:2] == ["bars", "clock"]
    clock = found.entries[1].scores
    assert (clock[ALL, "ranking_tau_b"].value, clock[ALL, "success_auc"].value) == (0, 0.5)
    answers = [json.loads(line) for line in found.predictions.read_text().splitlines()]
    assert all(a["value"] is not None for a in answers)
    stored = lake.rows("SELECT count(*) FROM leaderboard WHERE benchmark = 'rbm-eval' AND metric = 'ranking_tau_b'")
    assert stored[0][0] > 0
