"""Annotators compared, with embeddings that know equal names only."""

import json
from collections.abc import Sequence
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from core.domain.label import IDLE, STEP, Label, Segment
from core.errors import UserError
from core.paths import ROOT, Workspace
from core.tables import TABLES
from eval.annotators.compare import AnnotatorComparison, compare, differences, nearness_gain
from eval.annotators.scoring import (
    CLOCK,
    random_cuts,
    score_label,
    score_steps,
)
from eval.annotators.truth import hand_progress, planned_by_task, read_truth, simulator_truth
from tests.kits.files import table
from warehouse.lake import Lake

SAMPLES = ROOT / "samples" / "truth"

# name, first frame, frame after, kind, completed
Row = tuple[str, int, int, str, bool]
TRUE: list[Row] = [
    ("Grasp the cube", 0, 40, "step", True),
    ("Place it", 40, 80, "step", False),
    ("Idle", 80, 100, "idle", False),
]
GOOD: list[Row] = [("grasp cube.", 0, 43, "step", True), ("Place it", 43, 100, "step", False)]
BAD: list[Row] = [("Move", 0, 100, "step", True)]


def one_hot(texts: Sequence[str]) -> np.ndarray:
    return np.eye(len(texts), 50, dtype=np.float32)


def segments_of(rows: Sequence[Row]) -> tuple[Segment, ...]:
    return tuple(
        Segment(name, start, end, kind, completed) for name, start, end, kind, completed in rows
    )


def test_an_episode_against_itself():
    for dataset, lengths in (("sim_short", 66), ("sim_long", 18)):
        truths = simulator_truth(SAMPLES, dataset, dict.fromkeys(range(lengths), 10.0))
        assert len(truths) == lengths
        for hand_truth in truths.values():
            own_label = Label(hand_truth.passes[0], 1, progress=hand_truth.progress())
            vectors = dict.fromkeys([s.name for s in hand_truth.passes[0]], np.ones(1))
            ours = {
                k: v
                for k, v in score_steps(own_label, hand_truth, vectors).items()
                if "num_segments" not in k
            }
            assert set(ours.values()) == {1.0}
            score = score_label(own_label, hand_truth)
            assert (score["boundary_f1@0.5s"], score["mae"]) == (1, 0)
    assert simulator_truth(SAMPLES, "elsewhere", {}) == {}


@pytest.fixture
def lake(tmp_path) -> Lake:
    """`a` has ground truth, `b` has none; each has the runs r1 and r2, b's active one is r1."""
    lake = Lake(Workspace(tmp_path / "w"))
    fill(lake, "a", {"r1": {0: GOOD, 1: GOOD}, "r2": {0: BAD, 1: BAD}})
    fill(lake, "b", {"r1": {0: GOOD}, "r2": {0: BAD}})
    runs = [{"label_run": "r1", "annotator": "motion"}, {"label_run": "r2", "annotator": "vlm"}]
    lake.upsert("runs", label_runs=TABLES["label_runs"].rows(runs))
    return lake


def fill(lake: Lake, dataset: str, runs: dict[str, dict[int, list[Row]]]) -> None:
    """Episodes of 100 frames; even ones failed. The first run is the active one."""
    episodes = sorted(set(chain.from_iterable(runs.values())))
    tables: dict[str, list[dict[str, Any]]] = {
        n: [] for n in ("episode_facts", "segments", "progress", "active_runs")
    }
    for e in episodes:
        key_columns = {"dataset": dataset, "episode_index": e, "chunk": 0}
        tables["episode_facts"].append(
            key_columns | {"num_rows": 100, "fps": 10.0, "success": e % 2 == 1}
        )
        tables["active_runs"].append(key_columns | {"label_run": next(iter(runs))})
    for run, labels in runs.items():
        for e, rows in labels.items():
            key_columns = {"dataset": dataset, "episode_index": e, "chunk": 0, "label_run": run}
            for i, (name, start, end, kind, completed) in enumerate(rows):
                span = {"segment_index": i, "start_frame": start, "end_frame": end}
                tables["segments"].append(
                    key_columns
                    | span
                    | {"name": name, "kind": kind, "completed": completed, "named": name != "Move"}
                )
            curve = np.linspace(0, 1.0 if rows[-1][4] else 0.4, rows[-1][2])
            tables["progress"] += [
                key_columns | {"frame_index": f, "progress": p} for f, p in enumerate(curve)
            ]
    lake.upsert("labels", **{n: TABLES[n].rows(rows) for n, rows in tables.items()})


@pytest.fixture
def truth(tmp_path) -> Path:
    # Of episode 2 the lake knows nothing
    write_truth(tmp_path / "truth", "a", {0: TRUE, 1: TRUE, 2: TRUE})
    return tmp_path / "truth"


def write_truth(folder: Path, dataset: str, labels: dict[int, list[Row]]) -> None:
    (folder / dataset).mkdir(parents=True)
    names = ("text", "start_frame", "end_frame", "kind", "completed")
    segments = []
    for e, rows in labels.items():
        for i, row in enumerate(rows):
            place = {"episode_index": e, "segment_index": i}
            segments.append(place | dict(zip(names, row, strict=True)))
    pq.write_table(pa.Table.from_pylist(segments[::-1]), folder / dataset / "segments.parquet")
    episodes = [{"episode_index": e, "success": False, "policy": "scripted"} for e in labels]
    pq.write_table(pa.Table.from_pylist(episodes), folder / dataset / "episodes.parquet")
    curves = [
        (e, hand_progress(own_segments := segments_of(rows), own_segments[-1].end_frame))
        for e, rows in labels.items()
    ]
    frames = []
    for e, curve in curves:
        for f, p in enumerate(curve):
            frames.append({"episode_index": e, "frame_index": f, "true_progress": p})
    pq.write_table(pa.Table.from_pylist(frames), folder / dataset / "frames.parquet")


def compared(
    lake: Lake, truth: Path | None, **options: Any
) -> dict[tuple[str, str], AnnotatorComparison]:
    return {
        (c.benchmark, c.model): c
        for c in compare(lake, truth, embedded=one_hot, **options).labellers
    }


def test_what_is_gained_is_more_where_an_error_is_less(lake, truth):
    comparison = compared(lake, truth, datasets=["a"])
    r1, r2, clock = (comparison["annotators/a", name] for name in ("motion r1", "vlm r2", CLOCK))
    assert nearness_gain(r2, clock, "mae").value == pytest.approx(0, abs=1e-6)
    assert nearness_gain(r1, clock, "mae").value == -differences(r1, clock)["mae"].value != 0
    assert nearness_gain(r1, r2, "unnamed").value == 1
    assert nearness_gain(r2, r1, "boundary_f1@0.5s").value == pytest.approx(-2 / 3)
    assert nearness_gain(r1, clock, "boundary_f1@0.5s").n == 0


def test_over_all_datasets_episodes_count_alike(lake, truth):
    write_truth(truth, "b", {0: BAD})
    score = compared(lake, truth)["annotators/all", "vlm r2"].scores["all", "completed_accuracy"]
    assert (score.value, score.n) == (pytest.approx((0.5 + 0.5 + 1) / 3), 3)


def test_run_against_run(lake, truth):
    comparison = compare(lake, truth, run="r2", against="r1", datasets=["a"], embedded=one_hot)
    c = comparison.labellers[0]
    assert (c.label_run, c.against, c.benchmark) == ("r2", "r1", "annotators/a (r1)")
    assert c.scores["all", "target_num_segments"].value == 2
    assert compare(lake, truth, run="r1", against="r1", embedded=one_hot).labellers == []


def test_truth_of_other_episodes_is_an_error(lake, truth):
    lake.con.execute(
        "UPDATE episode_facts SET num_rows = 90 WHERE dataset = 'a' AND episode_index = 1"
    )
    with pytest.raises(UserError, match=r"a episode 1: .* 100 frames, the corpus 90"):
        compare(lake, truth, embedded=one_hot)


def segment(
    name: str,
    start: int,
    end: int,
    kind: str = STEP,
    completed: bool = True,
    step: int | None = None,
) -> dict:
    span = {"name": name, "start_frame": start, "end_frame": end}
    return span | {"kind": kind, "attempt": 1, "completed": completed, "step": step}


# A grasp that fails, is done again, and a thing that is carried in two parts with a rest between them
PASS_A = [
    segment("reach", 0, 20, step=0),
    segment("grasp", 20, 30, completed=False, step=1),
    segment("grasp", 30, 40, step=1),
    segment("carry", 40, 60, step=2),
    segment("hold still", 60, 70, IDLE),
    segment("carry", 70, 90, step=2),
    segment("withdraw", 90, 100, "retreat"),
]
PASS_B = [
    segment("reach", 0, 22, step=0),
    segment("grasp", 22, 44, step=1),
    segment("carry", 44, 88, step=2),
    segment("withdraw", 88, 100, "retreat"),
]


def write_by_hand(folder: Path, episode: int, **changes: object) -> Path:
    """A truth file of 100 frames, with notes of its own."""
    truth = {
        "episode_index": episode,
        "num_frames": 100,
        "fps": 10,
        "task": "put it there",
        "success": True,
    }
    truth |= {
        "boundaries": [{"frame": 42, "spread": 4, "before": "grasp"}],
        "events": [{"type": "grasp", "frame": 41}],
    }
    truth |= {"pass_a": PASS_A, "pass_b": PASS_B, "notes": [None, None]}
    file = folder / "arm" / f"{episode:06d}.json"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(truth | changes))
    return file


def test_random_cuts_are_the_same_for_a_seed_and_lie_inside():
    draws = random_cuts(3, 50, 7)
    assert draws == random_cuts(3, 50, 7)
    assert draws != random_cuts(3, 50, 8)
    assert all(len(set(draw)) == 3 and 1 <= min(draw) <= max(draw) <= 49 for draw in draws)


def test_a_label_of_another_recording_is_refused(tmp_path):
    write_by_hand(tmp_path, 3)
    label = Label((Segment("Grasp it", 0, 90, step=0),), 1, progress=np.zeros(90))
    with pytest.raises(ValueError, match=r"arm episode 3: 90 frames .* has 100"):
        score_label(label, read_truth(tmp_path, "arm")[3])


def test_a_file_needs_no_more_than_its_segments(tmp_path):
    # Boundaries are those that both passes have, within 0.5 s of one another
    file = write_by_hand(tmp_path, 0)
    content = json.loads(file.read_text())
    minimal = {
        name: content[name] for name in ("episode_index", "num_frames", "fps", "pass_a", "pass_b")
    }
    file.write_text(json.dumps(minimal))
    truth = read_truth(tmp_path, "arm")[0]
    # 20 beside 22, 40 beside 44, 90 beside 88; 30, 60 and 70 are in one pass alone
    assert truth.boundaries == (21, 42, 89)
    assert (truth.success, truth.events) == (None, ())
    file.write_text(json.dumps(minimal | {"pass_b": None}))
    assert read_truth(tmp_path, "arm")[0].boundaries == (20, 30, 40, 60, 70, 90)


@pytest.mark.parametrize(("changes", "message"), table("wrong_truths"))
def test_a_wrong_file_is_named_with_what_is_wrong(tmp_path, changes, message):
    write_by_hand(tmp_path, 0, **changes)
    with pytest.raises(UserError, match=message):
        read_truth(tmp_path, "arm")


def test_a_failed_run_is_measured_by_the_plan_of_its_task(tmp_path):
    folder = tmp_path / "arm"
    folder.mkdir()

    def write(episode: int, success: bool, steps: int) -> None:
        ends = [10 * (step + 1) for step in range(steps)]
        segments = [
            {"name": f"step {step}", "start_frame": end - 10, "end_frame": end, "step": step}
            for step, end in enumerate(ends)
        ]
        idle_row = {
            "name": "stand still",
            "start_frame": ends[-1],
            "end_frame": 100,
            "kind": "idle",
        }
        content = {"episode_index": episode, "num_frames": 100, "fps": 10, "success": success}
        (folder / f"{episode}.json").write_text(
            json.dumps(content | {"pass_a": [*segments, idle_row]})
        )

    write(0, True, 4)
    write(1, True, 5)
    write(2, False, 3)
    write(3, False, 3)
    tasks = {0: "fold", 1: "fold", 2: "fold", 3: "pour"}
    truths = planned_by_task(read_truth(tmp_path, "arm"), tasks)
    ends = {episode: float(truth.progress()[-1]) for episode, truth in truths.items()}
    assert ends == pytest.approx({0: 1.0, 1: 1.0, 2: 0.6, 3: 1.0})
