"""Signs that a label may be wrong: exact on made-up runs, and silent on a task whose runs are alike."""

import numpy as np
import pytest

from annotate.quality import FEWEST, LabelledRun, largest_jump, qualities, step_order
from annotate.segments import DONE, IDLE, STEP, Segment

FPS = 10.0
USUAL = [Segment("A", 0, 20, STEP, True, 0), Segment("B", 20, 40, STEP, True, 1), Segment("Done", 40, 50, DONE)]


def run(
    seconds: float = 5.0, segments: list[Segment] = USUAL, success: bool | None = True, end: float = 1.0, n: int = 50
) -> LabelledRun:
    return LabelledRun(seconds, FPS, success, segments, np.linspace(0, end, n))


def test_runs_that_are_alike_show_nothing():
    for q in qualities([run()] * FEWEST):
        assert (q.length_z, q.order_rarity, q.end, q.contradicts) == (0.0, 0.0, 1.0, False)
        assert q.jump == pytest.approx(5 / 49)


def test_falls_are_counted_and_the_worst_is_told():
    progress = np.array([0, 0.5, 0.495, 0.4, 0.9, 0.6, 1], np.float32)
    (q,) = qualities([LabelledRun(0.7, FPS, True, USUAL, progress)])
    assert (q.falls, q.worst_fall) == (2, pytest.approx(0.3))
    (q,) = qualities([run()])
    assert (q.falls, q.worst_fall) == (0, 0.0)
    (q,) = qualities([LabelledRun(0.1, FPS, True, USUAL, np.array([1.0]))])
    assert (q.falls, q.worst_fall) == (0, 0.0)


def test_a_run_of_odd_length_stands_out_by_its_robust_deviations():
    seconds = [4.0, 4.5, 5.0, 5.5, 6.0, 50.0]
    found = qualities([run(s) for s in seconds])
    logs = np.log(seconds)
    middle = np.median(logs)
    scale = 1.4826 * np.median(np.abs(logs - middle))
    assert [q.length_z for q in found] == pytest.approx(((logs - middle) / scale).tolist())
    assert found[-1].length_z is not None
    assert found[-1].length_z > 6
    # runs of nearly one length: a deviation of a twentieth is not odd
    almost = qualities([run(s) for s in (5.0, 5.0, 5.0, 5.0, 5.25)])
    assert almost[-1].length_z == pytest.approx(np.log(1.05) / 0.05)


def test_another_order_of_steps_stands_out():
    again = [USUAL[0], Segment("B", 20, 30, STEP, False, 1), Segment("A", 30, 40, STEP, True, 0), *USUAL[2:]]
    found = qualities([*[run()] * 4, run(segments=again)])
    assert [q.order_rarity for q in found] == pytest.approx([0.2] * 4 + [0.8])


def test_an_interrupted_step_counts_once():
    parts = [USUAL[0], Segment("B", 20, 25, STEP, False, 1), Segment("-", 25, 35, IDLE), Segment("B", 35, 40, step=1)]
    assert step_order(parts) == step_order(USUAL) == (0, 1)


def test_few_runs_show_nothing_that_is_usual():
    for q in qualities([run()] * (FEWEST - 1)):
        assert (q.length_z, q.order_rarity) == (None, None)


@pytest.mark.parametrize(
    ("success", "end", "contradicts"),
    [(True, 1.0, False), (True, 0.7, True), (False, 0.7, False), (False, 1.0, True), (None, 0.7, False)],
)
def test_label_and_source_may_contradict_each_other(success: bool | None, end: float, contradicts: bool):
    [q] = qualities([run(success=success, end=end)])
    assert (q.end, q.contradicts) == (end, contradicts)


def test_the_largest_jump_is_up_or_down_within_half_a_second():
    up, down = np.repeat([0.1, 0.7], 20), np.repeat([0.9, 0.1], 20)
    assert largest_jump(up, FPS) == pytest.approx(0.6)
    assert largest_jump(down, FPS) == pytest.approx(0.8)
    assert largest_jump(np.linspace(0, 1, 101), FPS) == pytest.approx(0.05)  # five of a hundred intervals
    assert largest_jump(np.zeros(1), FPS) == 0.0
