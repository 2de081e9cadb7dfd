"""States of a run's frames, and the moments drawn from them."""

from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from annotate.samples.moments import FAILED, FINISHED, ONGOING, REGRESSED, STALLED, STATES, draw_moments, frame_states
from annotate.segments import DONE, IDLE, Segment

RARE = 0.125


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def test_each_frame_has_a_state():
    """At 10 frames per second: work, a pause, a failed attempt, a drop, work, no gain, the end."""
    segments = [
        Segment("a", 0, 20, step=0),
        Segment("i", 20, 30, IDLE),
        Segment("b", 30, 50, completed=False, step=1),
        Segment("b", 50, 100, step=1),
        Segment("d", 100, 110, DONE),
    ]
    curve = np.interp(np.arange(110), [0, 19, 29, 48, 49, 70, 90, 99, 109], [0, 0.4, 0.4, 0.6, 0.3, 0.6, 0.6, 1, 1])
    found = frame_states(curve.astype(np.float32), segments, 10.0)
    assert (found[:20] == ONGOING).all()
    assert (found[20:30] == STALLED).all()
    assert (found[30:49] == FAILED).all()
    assert (found[49:57] == REGRESSED).all()  # a second before, it was further
    assert (found[60:71] == ONGOING).all()
    assert (found[81:91] == STALLED).all()  # no gain for a second
    assert (found[99:] == FINISHED).all()


def test_what_follows_the_last_attempt_of_an_unfinished_run_is_failed():
    segments = [Segment("a", 0, 30, step=0), Segment("i", 30, 60, IDLE)]
    found = frame_states(np.interp(np.arange(60), [0, 30], [0, 0.5]).astype(np.float32), segments, 10.0)
    assert (found[:30] == ONGOING).all()
    assert (found[30:] == FAILED).all()


def test_rare_states_get_their_share():
    state = np.full(400, ONGOING, np.int8)
    state[50:60], state[100:110], state[200:203], state[390:] = STALLED, REGRESSED, FAILED, FINISHED
    chosen = draw_moments(rng(), state, 10.0, 16, RARE)
    assert Counter(STATES[state[f]] for f in chosen) == {
        "ongoing": 8,
        "stalled": 2,
        "regressed": 2,
        "failed": 2,
        "finished": 2,
    }
    state[201:203] = ONGOING  # a tenth of a second is too short to look for
    assert FAILED not in state[draw_moments(rng(), state, 10.0, 16, RARE)]


@given(
    st.lists(st.integers(0, len(STATES) - 1), min_size=1, max_size=300),
    st.floats(1, 60),
    st.integers(0, 60),
    st.floats(0, 0.25),
    st.booleans(),
)
def test_moments_are_distinct_and_as_many_as_asked(state: list[int], fps: float, quota: int, share: float, ends: bool):
    chosen = draw_moments(rng(), np.array(state, np.int8), fps, quota, share, ends=ends)
    assert chosen == sorted(set(chosen))
    assert len(chosen) == min(quota, len(state), max(1, int(len(state) / fps * 5 + 1e-9)))
    assert all(0 <= f < len(state) for f in chosen)
    if ends and len(chosen) >= 2:
        assert (chosen[0], chosen[-1]) == (0, len(state) - 1)


@pytest.mark.parametrize("quota", [6, 12])
def test_a_run_without_rare_states_is_asked_about_evenly(quota: int):
    for seed in range(20):
        chosen = draw_moments(rng(seed), np.zeros(600, np.int8), 20.0, quota, RARE)
        assert [f * quota // 600 for f in chosen] == list(range(quota))
