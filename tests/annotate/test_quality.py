"""Signs that a label may be wrong: exact on made-up runs, and silent on a task whose runs are alike."""

import numpy as np
import pytest

from annotate.quality import LabelledRun, largest_jump, qualities
from annotate.segments import DONE, STEP, Segment

FPS = 10.0
USUAL = [Segment("A", 0, 20, STEP, True, 0), Segment("B", 20, 40, STEP, True, 1), Segment("Done", 40, 50, DONE)]


def run(
    seconds: float = 5.0, segments: list[Segment] = USUAL, success: bool | None = True, end: float = 1.0, n: int = 50
) -> LabelledRun:
    return LabelledRun(seconds, FPS, success, segments, np.linspace(0, end, n))


def test_falls_are_counted_and_the_worst_is_told():
    progress = np.array([0, 0.5, 0.495, 0.4, 0.9, 0.6, 1], np.float32)
    (q,) = qualities([LabelledRun(0.7, FPS, True, USUAL, progress)])
    assert (q.falls, q.worst_fall) == (2, pytest.approx(0.3))
    (q,) = qualities([run()])
    assert (q.falls, q.worst_fall) == (0, 0.0)
    (q,) = qualities([LabelledRun(0.1, FPS, True, USUAL, np.array([1.0]))])
    assert (q.falls, q.worst_fall) == (0, 0.0)


def test_another_order_of_steps_stands_out():
    again = [USUAL[0], Segment("B", 20, 30, STEP, False, 1), Segment("A", 30, 40, STEP, True, 0), *USUAL[2:]]
    found = qualities([*[run()] * 4, run(segments=again)])
    assert [q.order_rarity for q in found] == pytest.approx([0.2] * 4 + [0.8])


def test_the_largest_jump_is_up_or_down_within_half_a_second():
    up, down = np.repeat([0.1, 0.7], 20), np.repeat([0.9, 0.1], 20)
    assert largest_jump(up, FPS) == pytest.approx(0.6)
    assert largest_jump(down, FPS) == pytest.approx(0.8)
    assert largest_jump(np.linspace(0, 1, 101), FPS) == pytest.approx(0.05)  # five of a hundred intervals
    assert largest_jump(np.zeros(1), FPS) == 0.0
