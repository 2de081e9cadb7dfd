"""Labels against hand-labelled truth: figures worked out by hand, or by the script that people scored with."""

import json
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from annotate.segments import DONE, IDLE, STEP, Segment
from core.errors import UserError
from core.step_names import is_name, unnamed_step
from eval.annotators.labels import LabelledEpisode
from eval.annotators.scoring import (
    CLOCK,
    PASSES,
    UNIFORM,
    cuts_f1,
    even_cuts,
    random_cuts,
    score_baselines,
    score_label,
)
from eval.annotators.truth import hand_progress, read_truth

FPS = 10


def segment(name: str, start: int, end: int, kind: str = STEP, completed: bool = True, step: int | None = None) -> dict:
    return {
        "name": name,
        "kind": kind,
        "start_frame": start,
        "end_frame": end,
        "attempt": 1,
        "completed": completed,
        "step": step,
    }


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


def write_truth(folder: Path, episode: int, **changes: object) -> Path:
    """A truth file of 100 frames."""
    truth = {
        "dataset": "arm",
        "episode_index": episode,
        "num_frames": 100,
        "fps": FPS,
        "task": "put it there",
        "success": True,
        "boundaries": [
            {"frame": 21, "spread": 2, "before": "reach", "after": "grasp", "kind_after": "step"},
            {"frame": 42, "spread": 4, "before": "grasp", "after": "carry", "kind_after": "step"},
            {"frame": 66, "spread": 6, "before": "carry", "after": "hold still", "kind_after": "idle"},
            {"frame": 89, "spread": 2, "before": "carry", "after": "withdraw", "kind_after": "retreat"},
        ],
        "events": [
            {"type": "other", "frame": 28, "spread": 0},
            {"type": "grasp", "frame": 41, "spread": 1},
            {"type": "release", "frame": 88, "spread": 0},
        ],
        "only_a": 2,
        "only_b": 0,
        "pass_a": PASS_A,
        "pass_b": PASS_B,
        "notes": [None, None],
    }
    file = folder / "arm" / f"{episode:06d}.json"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(truth | changes))
    return file


def label(*cuts: int, n: int = 100, names: tuple[str, ...] = ("Grasp it",)) -> LabelledEpisode:
    """Steps between cuts, with progress that is the square of the time."""
    ends = [0, *cuts, n]
    spans = enumerate(pairwise(ends))
    own = ((names[k % len(names)], a, b, k) for k, (a, b) in spans)
    segments = tuple(Segment(name, a, b, STEP, True, k, named=is_name(name)) for name, a, b, k in own)
    return LabelledEpisode(segments, np.linspace(0, 1, n) ** 2, "motion", 0.5)


# Progress by hand


def test_a_failed_attempt_comes_half_way_and_falls_back() -> None:
    curve = hand_progress([Segment("grasp", 0, 10, completed=False), Segment("grasp", 10, 20)], 20)
    assert curve[9] == pytest.approx(0.45)
    assert curve[10] == 0
    assert curve[19] == pytest.approx(0.9)


def test_steps_have_equal_budgets_however_long_they_are() -> None:
    curve = hand_progress([Segment("reach", 0, 80, step=0), Segment("press", 80, 90, step=1)], 100)
    assert curve[40] == pytest.approx(0.25)
    assert curve[80] == pytest.approx(0.5)


def test_a_step_in_two_parts_earns_half_in_each_and_nothing_in_between() -> None:
    parts = [Segment("carry", 0, 10, step=0), Segment("rest", 10, 20, IDLE), Segment("carry", 20, 30, step=0)]
    curve = hand_progress([*parts, Segment("over", 30, 40, DONE)], 40)
    assert curve[5] == pytest.approx(0.25)
    assert set(curve[10:20]) == {0.5}
    assert curve[25] == pytest.approx(0.75)
    assert set(curve[30:]) == {1.0}


def test_without_a_step_nothing_is_earned() -> None:
    assert not hand_progress([Segment("wait", 0, 10, IDLE)], 10).any()


# Cuts


def test_a_boundary_counts_for_one_cut_only() -> None:
    assert cuts_f1([10, 11], [10], 5) == pytest.approx(2 / 3)
    assert cuts_f1([10, 20], [11, 19], 1) == 1
    assert cuts_f1([10], [12], 1) == 0


def test_as_many_are_matched_as_can_be() -> None:
    """12 could take 13, too: then 14 would have none."""
    assert cuts_f1([12, 14], [8, 13], 5) == 1


def test_where_there_is_nothing_to_find_no_cut_is_right() -> None:
    assert cuts_f1([], [], 5) == 1
    assert cuts_f1([3], [], 5) == 0


def test_random_cuts_are_the_same_for_a_seed_and_lie_inside() -> None:
    draws = random_cuts(3, 50, 7)
    assert draws == random_cuts(3, 50, 7)
    assert draws != random_cuts(3, 50, 8)
    assert all(len(set(draw)) == 3 and 1 <= min(draw) <= max(draw) <= 49 for draw in draws)


def test_even_cuts_part_an_episode_into_equal_pieces() -> None:
    assert even_cuts(3, 100) == [25, 50, 75]


# Episodes


def test_an_episode_scores_what_the_script_that_people_use_gives(tmp_path: Path) -> None:
    """The numbers are those of that script on the same files."""
    write_truth(tmp_path, 0)
    write_truth(tmp_path, 1, pass_b=None, success=None)
    truth = read_truth(tmp_path, "arm")
    labels = {0: label(18, 50, 86), 1: label(41, 60, names=(unnamed_step(0), "Grasp it"))}
    own = [score_label(labels[e], truth[e]) for e in truth]
    beside = [score_baselines(truth[e]) for e in truth]

    def mean(values: list[float]) -> float:
        return round(float(np.nanmean(values)), 3)

    found = {metric: mean([score[metric] for score in own]) for metric in own[0]}
    uniform = {metric: mean([score[UNIFORM][metric] for score in beside]) for metric in beside[0][UNIFORM]}
    expected = {"boundary_f1@0.5s": 0.533, "boundary_f1@1s": 0.7, "events@0.5s": 0.5, "mae": 0.299, "unnamed": 0.333}
    assert {metric: found[metric] for metric in expected} == expected
    assert (uniform["boundary_f1@0.5s"], uniform["boundary_f1@1s"]) == (0.333, 0.667)
    assert [mean([score[who]["mae"] for score in beside]) for who in (CLOCK, PASSES)] == [0.134, 0.027]


def test_boundaries_that_the_passes_put_apart_do_not_count(tmp_path: Path) -> None:
    write_truth(tmp_path, 0)
    assert read_truth(tmp_path, "arm")[0].boundaries == (21, 42, 89)


def test_events_are_as_far_off_as_the_nearest_cut(tmp_path: Path) -> None:
    write_truth(tmp_path, 0)
    truth = read_truth(tmp_path, "arm")[0]
    score = score_label(label(31, 90), truth)
    assert score["events_off_s"] == pytest.approx((1.0 + 0.2) / 2)
    assert score["events@0.5s"] == 0.5
    # Without a cut there is nothing near at all
    assert score_label(label(), truth)["events_off_s"] == 10.0


def test_slivers_are_counted(tmp_path: Path) -> None:
    write_truth(tmp_path, 0)
    score = score_label(label(50, 52), read_truth(tmp_path, "arm")[0])
    assert score["slivers"] == pytest.approx(1 / 3)


def test_a_label_of_the_truth_itself_is_perfect(tmp_path: Path) -> None:
    write_truth(tmp_path, 0, pass_b=None)
    truth = read_truth(tmp_path, "arm")[0]
    score = score_label(LabelledEpisode(truth.passes[0], truth.progress(), "native", None), truth)
    assert score["mae"] == 0
    for baseline in (UNIFORM, "random cuts"):
        assert score["boundary_f1@0.5s"] > score_baselines(truth)[baseline]["boundary_f1@0.5s"]


def test_a_label_of_another_recording_is_refused(tmp_path: Path) -> None:
    write_truth(tmp_path, 3)
    with pytest.raises(ValueError, match="arm episode 3: 90 frames are labelled, the truth has 100"):
        score_label(label(n=90), read_truth(tmp_path, "arm")[3])


# Files that are wrong


def test_a_file_needs_no_more_than_its_segments(tmp_path: Path) -> None:
    """Boundaries are those that both passes have, within 0.5 s of one another."""
    file = write_truth(tmp_path, 0)
    content = json.loads(file.read_text())
    least = {name: content[name] for name in ("episode_index", "num_frames", "fps", "pass_a", "pass_b")}
    file.write_text(json.dumps(least))
    truth = read_truth(tmp_path, "arm")[0]
    # 20 beside 22, 40 beside 44, 90 beside 88; 30, 60 and 70 are in one pass alone
    assert truth.boundaries == (21, 42, 89)
    assert (truth.success, truth.events) == (None, ())
    file.write_text(json.dumps(least | {"pass_b": None}))
    assert read_truth(tmp_path, "arm")[0].boundaries == (20, 30, 40, 60, 70, 90)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"fps": "ten"}, "0.json: fps: input should be a valid number"),
        ({"pass_a": []}, "0.json: pass_a: list should have at least 1 item"),
        ({"boundaries": [{"frame": 100}]}, "0.json: boundary at frame 100, the episode has 100 frames"),
        ({"events": [{"type": "grasp", "frame": 120}]}, "0.json: event at frame 120, the episode has 100 frames"),
        ({"num_frames": 110}, "pass_a ends at frame 100, the episode has 110 frames"),
        ({"pass_b": [PASS_B[0], PASS_B[2]]}, "pass_b: 'carry' has frames 44 to 88, expected to begin at 22"),
        ({"pass_a": [PASS_A[0] | {"kind": "walk"}]}, "pass_a.0.kind: input should be 'step', 'idle', 'done' or 'ret"),
    ],
)
def test_a_wrong_file_is_named_with_what_is_wrong(tmp_path: Path, changes: dict, message: str) -> None:
    write_truth(tmp_path, 0, **changes)
    with pytest.raises(UserError, match=message):
        read_truth(tmp_path, "arm")


def test_what_is_no_json_is_refused(tmp_path: Path) -> None:
    write_truth(tmp_path, 0).write_text("{")
    with pytest.raises(UserError, match=r"0\.json is no JSON: Expecting property name"):
        read_truth(tmp_path, "arm")


def test_two_files_of_one_episode_are_refused(tmp_path: Path) -> None:
    file = write_truth(tmp_path, 0)
    (file.parent / "again.json").write_text(file.read_text())
    with pytest.raises(UserError, match="episode 0 has another file"):
        read_truth(tmp_path, "arm")
