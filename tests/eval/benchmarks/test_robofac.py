"""RoboFAC's own files as a benchmark: what is read, which frames are shown, what is refused, and a whole evaluation."""

import json
from pathlib import Path

import pytest

from core.errors import UserError
from core.paths import Workspace
from eval.benchmarks.options import EvaluationOptions
from eval.benchmarks.question import BenchmarkError
from eval.benchmarks.run import evaluate_benchmark
from eval.runners.start import RunnerConfig
from tests.kits.bench_kit import by_part, questions_of
from tests.kits.reward_kit import bars, make_checkpoint, write_video
from warehouse.lake import Lake

STEPS = ["Reach the cube.", "Grasp the cube.", "Lift the cube."]
ERRORS = ["Grasping error.", "Wrong object.", "Timing error."]
# kind -> (question, answer to the first video, answer to the second, which succeeded: None where it is not asked)
ASKED = {
    "Task identification": ("What is the robot doing?", "Lift the cube.", "Lift the cube."),
    "Failure detection": ("Did the run fail? (Yes or No)", "Yes", "No"),
    "Failure identification": (f"Which error is it? (one of: {ERRORS})", "Grasping error.", None),
    "Failure locating": (f"In which step? (one of: {STEPS})", "Grasp the cube.", None),
    "Low-level correction": ("How should the arm move?", "Down by two centimetres.", None),
}


def make_robofac(root: Path, frames: int = 61) -> Path:
    """Two videos in test_qa_sim and one in test_qa_realworld."""
    for folder, videos, ids in (("test_qa_sim", "simulation_data", "ab"), ("test_qa_realworld", "realworld_data", "c")):
        (root / folder).mkdir(parents=True)
        for number, name in enumerate(ids):
            path = f"LiftCube/{name}.mp4"
            write_video(root / videos / path, bars(frames), fps=30)
            annos = {}
            for kind, (question, *answers) in ASKED.items():
                if answers[number] is not None:
                    asked = {"from": "human", "value": f"<image>\n{question}"}
                    annos[kind] = [asked, {"from": "assistant", "value": answers[number]}]
            row = {name: {"video": path, "task": "LiftCube", "annos": annos}}
            (root / folder / f"annos_per_video_split{number}.json").write_text(json.dumps(row))
    return root


@pytest.fixture(scope="module")
def robofac(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_robofac(tmp_path_factory.mktemp("robofac"))


def test_one_folder_one_file_parts_and_limit(robofac: Path, tmp_path: Path) -> None:
    whole = questions_of("robofac", str(robofac), image_root=tmp_path)
    sim = questions_of("robofac", str(robofac / "test_qa_sim"), image_root=tmp_path)
    assert [q.key for q in sim] == [q.key for q in whole if q.dataset == "test_qa_sim"]
    assert all(q.pictures[0].read() for q in sim)
    second = questions_of("robofac", str(robofac / "test_qa_sim" / "annos_per_video_split1.json"), image_root=tmp_path)
    assert [q.key for q in second] == [q.key for q in sim if q.trajectory == "b"]
    some = questions_of("robofac", str(robofac), image_root=tmp_path, part=("failure_detection",), limit=1)
    assert by_part(some) == {"failure_detection": 1}


def test_a_long_run_is_shown_in_32_pictures(tmp_path: Path) -> None:
    root = make_robofac(tmp_path / "r", frames=30 * 40)
    q = questions_of("robofac", str(root), image_root=tmp_path / "f", limit=1)[0]
    assert len(q.pictures) == 32
    assert [q.pictures[k].path.name for k in (0, -1)] == ["000000.jpg", f"{30 * 39:06d}.jpg"]


def test_a_video_that_is_missing_or_damaged_costs_its_own_questions(tmp_path: Path) -> None:
    root = make_robofac(tmp_path / "r")
    (root / "simulation_data/LiftCube/a.mp4").unlink()
    (root / "simulation_data/LiftCube/b.mp4").write_bytes(b"no video")
    questions = questions_of("robofac", str(root), image_root=tmp_path / "f")
    names = {q.trajectory: [p.path.name for p in q.pictures] for q in questions}
    assert (names["a"], names["b"], len(names["c"])) == (["a.mp4"], ["b.mp4"], 3)
    (root / "realworld_data/LiftCube/c.mp4").unlink()
    (root / "simulation_data/LiftCube/b.mp4").unlink()
    with pytest.raises(BenchmarkError, match=r"none of 3 videos is there, such as .*LiftCube/c.mp4"):
        questions_of("robofac", str(root), image_root=tmp_path / "f")


def test_a_model_is_asked_and_scored(robofac: Path, tmp_path: Path) -> None:
    lake, model = Lake(Workspace(tmp_path / "w")), make_checkpoint(tmp_path / "m", head=None)
    runner = RunnerConfig("m", EvaluationOptions(answer="text", max_tokens=4), model)
    config = EvaluationOptions(benchmark="robofac", data=str(robofac))
    evaluation = evaluate_benchmark(lake, config, runner)
    (entry,) = evaluation.entries
    # A model of random weights names no option
    assert entry.scores["all", "choice_accuracy"].value == 0
    assert entry.scored.counts["rows_failure_detection"] == 3
    assert evaluation.notes[-1].startswith("task_identification, low_level_correction: free text, which a judge model")
    assert evaluation.page is not None
    assert "judge model" in evaluation.page.read_text()
    (row,) = lake.rows(
        "SELECT count(*) FROM eval_predictions WHERE eval_run = ?", [lake.rows("SELECT eval_run FROM eval_runs")[0][0]]
    )
    assert row[0] == 12
    # Free text alone: answers are kept for a judge
    written = evaluate_benchmark(
        lake, EvaluationOptions(benchmark="robofac", data=str(robofac), part=("task_identification",)), runner
    )
    assert written.entries[0].scored.counts["unscored_task_identification"] == 3
    headed = make_checkpoint(tmp_path / "h")
    with pytest.raises(UserError, match="asks for words only"):
        evaluate_benchmark(lake, config, RunnerConfig("h", folder=headed))
