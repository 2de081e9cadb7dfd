"""Signs that a label may be wrong, that a run failed, and of its worth."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest

from annotate.motion.observe import Signals
from annotate.preferences import FURTHER_BY, WHOLE, ComparedRun, draw_pairs
from annotate.quality import (
    FARTHEST,
    FEWEST,
    SIGNS,
    Doubt,
    Quality,
    doubts,
    largest_jump,
    qualities,
    run_measures,
    signs_of,
)
from core.domain.label import DONE, STEP, Label, Segment

FPS = 10.0
USUAL = [
    Segment("A", 0, 20, STEP, True, 0),
    Segment("B", 20, 40, STEP, True, 1),
    Segment("Done", 40, 50, DONE),
]


def label_of(segments: list[Segment] = USUAL, progress: np.ndarray | None = None) -> Label:
    return Label(segments, 2, progress=np.linspace(0, 1, 50) if progress is None else progress)


def measured(*labels: Label) -> list[Quality]:
    return qualities(labels, [FPS] * len(labels), [True] * len(labels))


def test_falls_are_counted_and_the_worst_is_told():
    progress = np.array([0, 0.5, 0.495, 0.4, 0.9, 0.6, 1], np.float32)
    (q,) = measured(label_of(progress=progress))
    assert (q.falls, q.worst_fall) == (2, pytest.approx(0.3))
    (q,) = measured(label_of())
    assert (q.falls, q.worst_fall) == (0, 0.0)
    (q,) = measured(label_of(progress=np.array([1.0])))
    assert (q.falls, q.worst_fall) == (0, 0.0)


def test_another_order_of_steps_stands_out():
    repeated_run = [
        USUAL[0],
        Segment("B", 20, 30, STEP, False, 1),
        Segment("A", 30, 40, STEP, True, 0),
        *USUAL[2:],
    ]
    run_qualities = measured(*[label_of()] * 4, label_of(repeated_run))
    assert [q.order_rarity for q in run_qualities] == pytest.approx([0.2] * 4 + [0.8])


def test_the_largest_jump_is_up_or_down_within_half_a_second():
    up = np.repeat([0.1, 0.7], 20)
    down = np.repeat([0.9, 0.1], 20)
    assert largest_jump(up, FPS) == pytest.approx(0.6)
    assert largest_jump(down, FPS) == pytest.approx(0.8)
    assert largest_jump(np.linspace(0, 1, 101), FPS) == pytest.approx(0.05)
    assert largest_jump(np.zeros(1), FPS) == 0.0


RATE = 10.0
ELSEWHERE, PICTURE, SHORTER, SPEED, UNDONE = SIGNS


def ended(seconds: float = 5.0, end_opening: float = 1.0, success: bool | None = None) -> Signals:
    n = round(seconds * RATE)
    speed = np.r_[np.ones(n - 5), np.zeros(5)]
    way = np.linspace(0, end_opening, n)
    state = np.stack([way, np.sin(9 * way)], axis=1)
    return Signals(RATE, np.zeros(n), speed, success=success, state=state)


def alike(count: int) -> list[Signals]:
    """Runs of a task that end nearly alike."""
    return [ended(5.0 + 0.1 * (k % 3), 1.0 + 0.002 * k) for k in range(count)]


def hashes(runs: Sequence[Signals]) -> list[int]:
    """Last pictures that hardly differ."""
    return [1 << k for k in range(len(runs))]


def judged(runs: Sequence[Signals]) -> list[Doubt | None]:
    return doubts(runs, hashes(runs), [1.0] * len(runs))


def elsewhere(runs: Sequence[Signals]) -> np.ndarray:
    """How far each run ends from where the others do."""
    return signs_of(runs, hashes(runs), [1.0] * len(runs))[:, SIGNS.index(ELSEWHERE)]


def test_runs_that_end_alike_are_hardly_in_doubt():
    assert all(doubt.p_failure < 0.2 for doubt in judged(alike(8)))
    assert judged(alike(FEWEST - 1)) == [None] * (FEWEST - 1)
    assert all(judged(alike(FEWEST)))
    assert judged([*alike(FEWEST - 1), ended(success=False)]) == [None] * FEWEST
    assert judged([]) == []


def test_without_states_pictures_and_times_decide():
    runs = [*alike(8), ended(seconds=3.0, end_opening=0.4)]
    blind = [replace(r, state=None) for r in runs]
    signs = signs_of(blind, [*hashes(alike(8)), 0xFFFFFF], [1.0] * len(blind))
    assert not signs[:, SIGNS.index(ELSEWHERE)].any()
    assert signs[-1, SIGNS.index(PICTURE)] == FARTHEST
    mixed = [*alike(8), replace(ended(), state=np.zeros((50, 3)))]
    assert not elsewhere(mixed).any()
    still = [replace(r, state=np.ones((50, 2))) for r in blind]
    assert not elsewhere(still).any()


RATE_20 = 20.0


def test_the_end_is_the_mean_of_the_last_moment():
    state = np.outer(np.repeat([0.0, 1.0], [40, 5]), [1, -2])
    m = run_measures(Signals(RATE_20, np.full(45, 0.01), None, state=state))
    assert m.end_state == pytest.approx([1, -2])
    assert m.state_spread == pytest.approx(state.std(axis=0))


@pytest.mark.parametrize("state", [None, np.zeros((60, 2)), np.full((60, 2), np.nan)])
def test_without_a_state_that_moves_there_is_no_jerk(state):
    m = run_measures(Signals(RATE_20, np.full(60, 0.01), None, state=state))
    assert (m.jerk, m.reversals) == (None, None)
    assert (m.end_state is None) == (state is None or bool(np.isnan(state).any()))


def test_jerk_over_speed_of_an_oscillation():
    rad_per_s = 2.0
    swing = np.sin(rad_per_s * np.arange(400) / RATE_20)
    signals = Signals(RATE_20, np.full(400, 0.01), None, state=np.outer(swing, [1, -2]))
    assert run_measures(signals).jerk == pytest.approx(rad_per_s**2, rel=0.1)


@pytest.mark.parametrize("n", [1, 2, 5, 9])
def test_a_run_of_few_frames_is_measured(n):
    m = run_measures(
        Signals(RATE_20, np.full(n, 0.01), np.full(n, 0.5), state=np.arange(2.0 * n).reshape(n, 2))
    )
    assert m.duration_s == n / RATE_20
    assert m.jerk is None
    assert m.reversals in (0, None)


def run(number: int, end: float = 1.0, task: str = "open", **run_fields: object) -> ComparedRun:
    ramp = np.linspace(0, end, 16, dtype=np.float32)
    return ComparedRun(
        "d", number, task, np.arange(0, 32, 2), ramp, **{"label_run": "r", **run_fields}
    )


RUNS = [
    run(0, success=True, quality=0.9),
    run(1, success=True, quality=0.1),
    run(2, end=0.4, success=False, quality=0.05),
    run(3, task="close", success=True, quality=0.95),
    run(4, success=None, quality=0.2),
]


def test_the_chosen_part_is_ahead_and_of_the_same_task():
    pairs = draw_pairs(RUNS, 8, seed=3)
    by_number = {r.episode_index: r for r in RUNS}
    for pair in pairs:
        chosen = by_number[pair.chosen.episode_index]
        rejected = by_number[pair.rejected.episode_index]
        assert chosen.same_as == rejected.same_as
        if pair.why == "further":
            (ahead,), (behind,) = pair.chosen.progress, pair.rejected.progress
            assert ahead - behind == pytest.approx(pair.margin)
            assert pair.margin >= FURTHER_BY
        elif pair.why == "outcome":
            assert (chosen.success, rejected.success) == (True, False)
            assert (pair.chosen.frames, pair.rejected.frames) == ((30,), (30,))
        else:
            assert (chosen.episode_index, rejected.episode_index) == (0, 1)
            assert pair.margin == pytest.approx(0.8)
            assert len(pair.chosen.frames) == WHOLE
            assert (pair.chosen.frames[0], pair.chosen.frames[-1]) == (0, 30)
    assert {p.why for p in pairs} == {"further", "outcome", "quality"}


def test_no_pair_comes_twice_and_each_run_has_its_share():
    pairs = draw_pairs(RUNS, 5, seed=3)
    assert len(set(pairs)) == len(pairs)
    counts = Counter(p.why for p in pairs)
    # Two successes against one failure, and one pair of qualities: there are no more of them
    assert counts["outcome"] == 2
    assert counts["quality"] == 1
    assert 15 <= counts["further"] <= 25


def test_equal_seeds_draw_equal_pairs_whatever_else_there_is():
    pairs = draw_pairs(RUNS, 4, seed=3)
    assert draw_pairs(RUNS[::-1], 4, seed=3) == pairs
    of_open = [p for p in pairs if p.chosen.episode_index != 3]
    assert draw_pairs([r for r in RUNS if r.same_as == "open"], 4, seed=3) == of_open
    assert draw_pairs(RUNS, 4, seed=4) != pairs
