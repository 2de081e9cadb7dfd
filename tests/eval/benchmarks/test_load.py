"""Benchmarks of the hub, of LeRobot datasets, and in their published layouts."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from core.errors import UserError
from core.paths import Workspace
from eval.benchmarks import wgo
from eval.benchmarks.load import score_predictions
from eval.benchmarks.options import EvaluationOptions
from eval.benchmarks.question import BenchmarkError, PictureFile, PredictionLine
from eval.benchmarks.run import evaluate_benchmark
from eval.runners.start import RunnerConfig
from eval.scored import ALL
from ingest.registry import DatasetConfig
from ingest.source import list_episodes
from ingest.sources.files import Source
from tests.kits import laptop_kit, reward_kit
from tests.kits.bench_kit import by_part, questions_of
from tests.kits.files import files_of
from tests.kits.hub_server import public_hub
from tests.kits.lerobot_writer import write_v3
from tests.kits.reward_kit import bars, write_video
from training.pictures import decode_picture
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
    # The same video under another instruction
    {"file_name": "droid/a.mp4", "task": TASKS[1], "reward": 1},
]


def make_rbm(root: Path) -> Path:
    (root / "train").mkdir(parents=True)
    (root / "meta").mkdir()
    (root / "meta" / "info.json").write_text(json.dumps({"video_path": "{split}/{file_name}"}))
    for name, *_ in RBM_ROWS:
        write_video(root / "train" / name, bars(21), fps=10)
    names = ("file_name", "task", "quality_label", "partial_success")
    about = [
        {"id": f"uuid-{n}", "data_source": row[0][:3], "is_robot": "True"}
        for n, row in enumerate(RBM_ROWS)
    ]
    facts = [
        dict(zip(names, row, strict=True)) | extra_fields
        for row, extra_fields in zip(RBM_ROWS, about, strict=True)
    ]
    pq.write_table(pa.Table.from_pylist(facts), root / "train" / "metadata.parquet")
    return root


def test_videos_that_are_missing_or_damaged_cost_their_own_question(tmp_path):
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
    with pytest.raises(BenchmarkError, match=r"none of 5 videos .* train/usc/a\.mp4"):
        questions_of("rbm-eval", str(root), image_root=tmp_path / "f")


def test_points_are_compared_as_whole_ones(tmp_path):
    for row in REWARD_ROWS:
        write_video(tmp_path / "test" / row["file_name"], bars(21), fps=10)
    (tmp_path / "test" / "metadata.jsonl").write_text(
        "\n".join(map(json.dumps, REWARD_ROWS)) + "\n"
    )
    questions = questions_of("roboreward", str(tmp_path), image_root=tmp_path / "f")
    answered = zip(questions, (0.95, 0.5, None), strict=True)
    lines = [PredictionLine(q.key, q.meta_data(), "", value) for q, value in answered]
    scores = score_predictions("roboreward", lines).scores
    assert scores[ALL, "points_accuracy"].value == pytest.approx(1 / 3)
    assert scores[ALL, "points_mae"].value == pytest.approx((0 + 1 + 4) / 3)
    assert scores[ALL, "coverage"].value == pytest.approx(2 / 3)


def test_a_model_is_evaluated_beside_the_clock(tmp_path):
    lake = Lake(Workspace(tmp_path / "w"))
    folder = laptop_kit.make_checkpoint(tmp_path / "bars")
    config = EvaluationOptions(benchmark="rbm-eval", data=str(make_rbm(tmp_path / "rbm")))
    evaluation = evaluate_benchmark(lake, RunnerConfig("bars", config, folder))
    assert [e.model for e in evaluation.entries][:2] == ["bars", "clock"]
    clock = evaluation.entries[1].scores
    assert (clock[ALL, "ranking_tau_b"].value, clock[ALL, "success_auc"].value) == (0, 0.5)
    answers = [json.loads(line) for line in evaluation.predictions.read_text().splitlines()]
    assert all(a["value"] is not None for a in answers)
    stored = lake.rows(
        "SELECT count(*) FROM leaderboard WHERE benchmark = 'rbm-eval' AND metric = 'ranking_tau_b'"
    )
    assert stored[0][0] > 0


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
    for folder, videos, ids in (
        ("test_qa_sim", "simulation_data", "ab"),
        ("test_qa_realworld", "realworld_data", "c"),
    ):
        (root / folder).mkdir(parents=True)
        for number, name in enumerate(ids):
            path = f"LiftCube/{name}.mp4"
            write_video(root / videos / path, bars(frames), fps=30)
            annos = {}
            for kind, (question, *answers) in ASKED.items():
                if answers[number] is not None:
                    question_turn = {"from": "human", "value": f"<image>\n{question}"}
                    annos[kind] = [question_turn, {"from": "assistant", "value": answers[number]}]
            row = {name: {"video": path, "task": "LiftCube", "annos": annos}}
            (root / folder / f"annos_per_video_split{number}.json").write_text(json.dumps(row))
    return root


@pytest.fixture(scope="module")
def robofac(tmp_path_factory) -> Path:
    return make_robofac(tmp_path_factory.mktemp("robofac"))


def test_one_folder_one_file_parts_and_limit(robofac, tmp_path):
    whole = questions_of("robofac", str(robofac), image_root=tmp_path)
    sim = questions_of("robofac", str(robofac / "test_qa_sim"), image_root=tmp_path)
    assert [q.key for q in sim] == [q.key for q in whole if q.dataset == "test_qa_sim"]
    assert all(q.pictures[0].read() for q in sim)
    second = questions_of(
        "robofac", str(robofac / "test_qa_sim" / "annos_per_video_split1.json"), image_root=tmp_path
    )
    assert [q.key for q in second] == [q.key for q in sim if q.trajectory == "b"]
    chosen_questions = questions_of(
        "robofac", str(robofac), image_root=tmp_path, part=("failure_detection",), limit=1
    )
    assert by_part(chosen_questions) == {"failure_detection": 1}


def test_a_long_run_is_shown_in_32_pictures(tmp_path):
    root = make_robofac(tmp_path / "r", frames=30 * 40)
    q = questions_of("robofac", str(root), image_root=tmp_path / "f", limit=1)[0]
    assert len(q.pictures) == 32
    assert [q.pictures[k].path.name for k in (0, -1)] == ["000000.jpg", f"{30 * 39:06d}.jpg"]


def test_a_model_is_asked_and_scored(robofac, tmp_path):
    lake = Lake(Workspace(tmp_path / "w"))
    model = reward_kit.make_checkpoint(tmp_path / "m", head=None)
    config = EvaluationOptions(benchmark="robofac", data=str(robofac), answer="text", max_tokens=4)
    evaluation = evaluate_benchmark(lake, RunnerConfig("m", config, model))
    (entry,) = evaluation.entries
    # A model of random weights names no option
    assert entry.scores["all", "choice_accuracy"].value == 0
    assert entry.counts["rows_failure_detection"] == 3
    assert evaluation.notes[-1].startswith(
        "task_identification, low_level_correction: free text, which a judge model"
    )
    assert "judge model" in evaluation.page.read_text()
    (row,) = lake.rows(
        "SELECT count(*) FROM eval_predictions WHERE eval_run = ?",
        [lake.rows("SELECT eval_run FROM eval_runs")[0][0]],
    )
    assert row[0] == 12
    # Free text alone: answers are kept for a judge
    one_part = config.model_copy(update={"part": ("task_identification",)})
    written = evaluate_benchmark(lake, RunnerConfig("m", one_part, model))
    assert written.entries[0].counts["unscored_task_identification"] == 3
    headed = reward_kit.make_checkpoint(tmp_path / "h")
    by_head = config.model_copy(update={"answer": "auto"})
    with pytest.raises(UserError, match="asks for words only"):
        evaluate_benchmark(lake, RunnerConfig("h", by_head, headed))


def test_a_pinned_commit_is_read_and_only_what_is_asked_for_is_fetched(bench, tmp_path):
    first = {"part": ["visual_same_view"], "limit": 1}
    with public_hub("someone/bench") as hub:
        commit = hub.commit(files_of(bench))
        hub.commit({"README.md": b"all gone"})
        address = f"hf://someone/bench@{commit}"
        [question] = questions_of("progress-bench", address, cache=tmp_path, **first)
    pictures = {p for p in hub.fetched() if p.endswith(".jpg")}
    assert hub.fetched() - pictures == {"prog-bench/visual_same_view.jsonl"}
    assert len(pictures) == len(question.pictures) == 5
    [local] = questions_of("progress-bench", str(bench), **first)
    assert [p.read() for p in question.pictures] == [p.read() for p in local.pictures]
    assert question.key == local.key


def test_what_cannot_be_loaded_says_why(bench, tmp_path):
    with pytest.raises(BenchmarkError, match="'x'; known: held-out, progress-bench"):
        questions_of("x")
    with pytest.raises(BenchmarkError, match="no part 'visual'; it has text-normal"):
        questions_of("progress-bench", str(bench), part=["visual"])
    with pytest.raises(BenchmarkError, match=r"--image-root .*nowhere is no folder"):
        questions_of("progress-bench", str(bench), image_root=tmp_path / "nowhere")
    with pytest.raises(BenchmarkError, match="give a workspace and a release"):
        questions_of("procvqa-id")
    lines = (bench / "prog-bench" / "text-normal.jsonl").read_text().splitlines()
    escaping_line = lines[1].replace("camera_top", "../../../../camera_top")
    (tmp_path / "rows.jsonl").write_text(f"{lines[0]}\n{escaping_line}")
    with pytest.raises(BenchmarkError, match="outside the folder of pictures"):
        questions_of("progress-bench", str(tmp_path / "rows.jsonl"), image_root=tmp_path)
    (tmp_path / "rows.jsonl").write_text(f"{lines[0]}\n{{")
    with pytest.raises(BenchmarkError, match=r"rows\.jsonl line 2 is not JSON"):
        questions_of("progress-bench", str(tmp_path / "rows.jsonl"))


def labelled(root: Path) -> Path:
    """A v3 dataset with progress and success; its last episode is not labelled."""
    write_v3(root, (20, 30, 12))
    for path in sorted((root / "data").rglob("*.parquet")):
        table = pq.read_table(path)
        episode, frame = (table[c].to_numpy() for c in ("episode_index", "frame_index"))
        length = np.array([20, 30, 12])[episode]
        share = np.where(episode == 2, np.nan, frame / (length - 1) * 0.8)
        table = table.append_column("progress", [share.astype(np.float32)])
        pq.write_table(table.append_column("success", [episode == 0]), path)
    return root


def test_a_datasets_progress_and_success(tmp_path):
    root = labelled(tmp_path / "data" / "toy")
    questions = questions_of("dataset", str(root), image_root=tmp_path / "frames")
    assert by_part(questions) == {"progress": 32, "success": 3}
    assert [(q.trajectory, q.success) for q in questions if q.part == "success"] == [
        ("0", True), ("1", False), ("2", False),
    ]  # fmt: skip
    run = [q for q in questions if q.part == "progress" and q.trajectory == "1"]
    assert [q.frame_index for q in run][:: len(run) - 1] == [0, 29]
    assert [q.progress for q in run] == pytest.approx(
        [q.frame_index / 29 * 0.8 for q in run], abs=1e-6
    )
    assert all(q.text.count("<image>") == len(q.pictures) for q in questions)
    assert decode_picture(run[0].pictures[-1].read(), 100).ndim == 3
    (frame,) = (tmp_path / "frames").rglob("000000/000000.jpg")
    frame.write_bytes(b"kept")
    limited_questions = questions_of(
        "dataset", str(root), image_root=tmp_path / "frames", num_inferences=2, limit=1
    )
    assert frame.read_bytes() == b"kept"
    assert len({q.key for q in limited_questions}) == 34
    assert {q.key for q in limited_questions if q.inference == 0} <= {q.key for q in questions}


@pytest.mark.parametrize("missing", [(None, None), ([0.1], [0.1, 0.2])])
def test_a_run_whose_lists_hold_no_progress_is_not_asked_about(tmp_path, missing):
    # LeRobot keeps a number as a list of one: of a run without labels rows are null, or lists of something else
    root = labelled(tmp_path / "toy")
    for path in sorted((root / "data").rglob("*.parquet")):
        table = pq.read_table(path).drop_columns("success")
        shares = table["progress"].to_pylist()
        lists = [missing[k % 2] if np.isnan(s) else [s] for k, s in enumerate(shares)]
        column = pa.array(lists, pa.list_(pa.float32()))
        place = table.schema.get_field_index("progress")
        pq.write_table(table.set_column(place, "progress", column), path)
    questions = questions_of("dataset", str(root), image_root=tmp_path / "frames")
    assert {q.trajectory for q in questions} == {"0", "1"}


def vpb_record(run: str, percents: dict[int, float], **changed: Any) -> dict[str, Any]:
    """A run of 30 frames; its keyframes' progress by frame."""
    place = f"__VLAC2_FRAMES_ROOT__/{run}/top/{{:06d}}.jpg"
    return {
        "metadata": {"task_instruction": TASKS[0], "fps": 10, "is_expert": run == "expert"},
        "frame_index": {"top": [place.format(n) for n in range(30)], "side": []},
        "dense_kinematic_progress": [],
        "semantic_anchors": [
            {
                "frame_index": frame,
                "human_annotated_progress": percent,
                "progress_explanation": "so",
            }
            for frame, percent in percents.items()
        ],
    } | changed


def test_keyframes_are_asked_and_scored_by_split(tmp_path):
    by_frame = [{"top": f"a/top/{n:06d}.jpg"} for n in range(30)]
    records = {
        "test_nonexpert_seen": [
            vpb_record("a", {0: 0, 10: 60, 20: -20, 29: 100}),
            vpb_record("b", {29: 100}, frame_index=by_frame),
        ],
        "test_expert_seen": [vpb_record("expert", {0: 0, 15: 50, 29: 100})],
    }
    (tmp_path / "splits").mkdir()
    for part, of_part in records.items():
        (tmp_path / "splits" / f"{part}.json").write_text(json.dumps(of_part))
    options = {"part": tuple(records), "image_root": tmp_path / "frames"}
    questions = questions_of("vpb", str(tmp_path), **options)
    assert by_part(questions) == {"test_nonexpert_seen": 5, "test_expert_seen": 3}
    assert [q.progress for q in questions[:4]] == [0, 0.6, 0, 1]
    assert questions[1].pictures[-1].path == tmp_path / "frames" / "a" / "top" / "000010.jpg"
    assert questions[4].pictures[-1].path == tmp_path / "frames" / "a" / "top" / "000029.jpg"
    assert all(q.text.count("<image>") == len(q.pictures) for q in questions)
    clock = [
        PredictionLine(str(n), q.meta_data(), value=q.frame_index / 29)
        for n, q in enumerate(questions)
    ]
    scores = score_predictions("vpb", clock).scores
    assert scores["part 3 test_expert_seen", "mae"].value < 0.02
    assert scores["part 1 test_nonexpert_seen", "mae"].value > 0.1

    for changed, message in (
        (
            {"metadata": {"task_instruction": "x", "rate": 10}},
            "0 of task_instruction, rate say its fps",
        ),
        ({"frame_index": {"top": ["../x.jpg"] * 30}}, "outside the folder of pictures"),
        (
            {"semantic_anchors": [{"frame": 30, "human_annotated_progress": 1}]},
            "keyframe 30 of 30 frames",
        ),
        (
            {"semantic_anchors": [{"frame": 3, "human_annotated_progress": 101}]},
            "annotated_progress",
        ),
    ):
        broken = json.dumps([vpb_record("a", {0: 0}, **changed)])
        (tmp_path / "splits" / "test_expert_seen.json").write_text(broken)
        with pytest.raises(BenchmarkError, match=message):
            questions_of("vpb", str(tmp_path), **options)


def test_videos_of_a_table_are_episodes_with_steps(tmp_path):
    write_video(tmp_path / "video.mp4", bars(60), fps=10)
    row = {
        "id": "droid_07",
        "video": (tmp_path / "video.mp4").read_bytes(),
        "instruction": TASKS[0],
        "segments": [
            {"start_sec": 0.0, "end_sec": 2.5, "subtask": "reach the bar"},
            {"start_sec": 2.5, "end_sec": 6.0, "subtask": "push the bar"},
        ],
        "metadata": "{}",
        "perception_state": {"robot_family": "droid"},
    }
    table = tmp_path / "annotations.parquet"
    pq.write_table(pa.Table.from_pylist([row, row | {"id": "homer_01"}]), table)
    assert wgo.unpack(table, tmp_path / "wgo") == {"droid": 1, "homer": 1}
    source = Source(DatasetConfig(name="droid", source=str(tmp_path / "wgo" / "droid")))
    (record,) = list_episodes(source).records
    assert (record.task, record.fps) == (TASKS[0], 10)
    assert [step.name for step in record.steps] == ["reach the bar", "push the bar"]
    pq.write_table(pa.Table.from_pylist([row | {"id": "../x"}]), table)
    with pytest.raises(BenchmarkError, match="row 1: id"):
        wgo.unpack(table, tmp_path / "other")


def test_a_picture_inside_a_file_and_one_that_is_cut_off(tmp_path):
    path = tmp_path / "shard.tar"
    path.write_bytes(b"0123456789")
    assert PictureFile(path, 2, 3).read() == b"234"
    with pytest.raises(BenchmarkError, match="cut off"):
        PictureFile(path, 8, 3).read()
    with pytest.raises(BenchmarkError, match="No such file"):
        PictureFile(tmp_path / "none.jpg").read()
