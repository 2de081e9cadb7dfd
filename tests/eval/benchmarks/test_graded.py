"""RBM-EVAL's and RoboReward's layouts as benchmarks: what is read, shown, refused and scored."""

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from core.paths import Workspace
from eval.benchmarks.options import EvaluationOptions
from eval.benchmarks.question import BenchmarkError, Question
from eval.benchmarks.rows import PredictionLine
from eval.benchmarks.run import evaluate_benchmark
from eval.runners.start import RunnerConfig
from eval.scoring.files import score_predictions
from eval.scoring.scored import ALL
from tests.kits.bench_kit import questions_of
from tests.kits.laptop_kit import make_checkpoint
from tests.kits.reward_kit import bars, write_video
from warehouse.lake import Lake

TASKS = ("Push the bar.", "Fold the cloth.")
# (file, task, quality, partial success as the published table writes it)
RBM_ROWS = [
    ("usc/a.mp4", TASKS[0], "successful", "1.0"),
    ("usc/b.mp4", TASKS[0], "suboptimal", "0.6"),
    ("usc/c.mp4", TASKS[0], "failure", "0.1"),
    ("mit/d.mp4", TASKS[1], "success", None),
    ("mit/e.mp4", TASKS[1], "failure", ""),
]
REWARD_ROWS: list[dict[str, Any]] = [
    {"file_name": "droid/a.mp4", "task": TASKS[0], "reward": 5, "gpt5_mini_check": "yes"},
    {"file_name": "droid/b.mp4", "task": TASKS[0], "reward": 2},
    {"file_name": "droid/a.mp4", "task": TASKS[1], "reward": 1},  # the same video under another instruction
]


def make_rbm(root: Path) -> Path:
    (root / "train").mkdir(parents=True)
    (root / "meta").mkdir()
    (root / "meta" / "info.json").write_text(json.dumps({"video_path": "{split}/{file_name}"}))
    for name, *_ in RBM_ROWS:
        write_video(root / "train" / name, bars(21), fps=10)
    facts = [
        {
            "file_name": name,
            "quality_label": quality,
            "id": f"uuid-{number}",
            "task": task,
            "data_source": name.split("/")[0],
            "is_robot": "True",
            "partial_success": partial,
        }
        for number, (name, task, quality, partial) in enumerate(RBM_ROWS)
    ]
    pq.write_table(pa.Table.from_pylist(facts), root / "train" / "metadata.parquet")
    return root


def make_roboreward(root: Path) -> Path:
    for name in ("droid/a.mp4", "droid/b.mp4"):
        write_video(root / "test" / name, bars(21), fps=10)
    (root / "test" / "metadata.jsonl").write_text("\n".join(map(json.dumps, REWARD_ROWS)) + "\n")
    return root


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
    assert scores[ALL, "coverage"].value == pytest.approx(2 / 3)


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
