"""How far an unfinished run came, on made-up ways: exact where it follows one, nothing where none is like it."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from annotate.motion.reference_runs import MAX_REFERENCES, MIN_REFERENCES, ReferenceMatch, learn_references, match

N = 60


def way(offset: float = 0.0, n: int = N, extra: np.ndarray | None = None) -> np.ndarray:
    """To x = 1 and back to where it began while y rises: [n, 2] or, with `extra`, [n, 3]."""
    t = np.linspace(0, 1, n)
    state = np.c_[1 - np.abs(2 * t - 1) + offset * t, t]
    return state if extra is None else np.c_[state, extra]


SUCCESSFUL = [way(o) for o in (0.0, 0.1, 0.2, 0.3)]


@settings(deadline=None, max_examples=60)
@given(st.integers(0, 3), st.integers(5, N), st.integers(0, 20))
def test_a_run_that_stops_on_a_known_way_came_as_far_as_it_there(which: int, stop: int, frozen: int):
    run = np.r_[SUCCESSFUL[which][:stop], np.repeat(SUCCESSFUL[which][stop - 1 : stop], frozen, axis=0)]
    known = learn_references(SUCCESSFUL)
    assert known is not None
    assert match(run, known) == ReferenceMatch(which, stop - 1, None)


def test_a_run_that_misses_its_thing_came_as_far_as_to_where_it_left():
    known = learn_references(SUCCESSFUL)
    assert known is not None
    run = SUCCESSFUL[1].copy()
    run[:, 0] -= np.linspace(0, 2, N)
    found = match(run, known)
    assert found is not None
    assert found.diverged_at is not None
    assert abs(found.frame - found.diverged_at) <= 8
    assert found.diverged_at < N / 2


def test_a_run_that_began_elsewhere_has_left_only_if_it_leaves_again():
    known = learn_references(SUCCESSFUL)
    assert known is not None
    run = np.r_[np.linspace((3.0, 0.0), SUCCESSFUL[1][0], 10, endpoint=False), SUCCESSFUL[1]]
    joined = match(run[:40], known)
    assert joined is not None
    assert joined.diverged_at is None
    assert joined.frame == pytest.approx(29, abs=1)
    run[30:, 0] -= np.linspace(0, 2, 40)
    again = match(run, known)
    assert again is not None
    assert again.diverged_at is not None
    assert again.diverged_at > 30


def test_a_run_known_not_to_have_gone_astray_never_left():
    known = learn_references(SUCCESSFUL)
    assert known is not None
    far = SUCCESSFUL[1] + [0.0, 3.0]
    assert match(far, known) is None
    found = match(far, known, may_diverge=False)
    assert found is not None
    assert found.diverged_at is None


def test_a_new_start_is_away_only_where_successful_runs_agree():
    """They differ by 0 to 0.3 along x: 0.2 more is another start, and 0.2 off what they do alike is another way."""
    rise = np.linspace(0, 1, N)
    known = learn_references([np.c_[s, rise**2] for s in SUCCESSFUL])
    assert known is not None
    beside = np.c_[way(0.5), rise**2]
    above = np.c_[way(0.15), rise**2 + 0.2 * np.sin(np.pi * rise)]
    for run, away in ((beside, False), (above, True)):
        found = match(run, known)
        assert found is not None
        assert (found.diverged_at is not None) == away


def test_long_runs_are_compared_at_some_of_their_frames():
    slow = way(0.1, 4000)[:1000]
    many = learn_references([way(o, 4000) for o in (0.0, 0.1, 0.2)])
    assert many is not None
    found = match(slow, many)
    assert found is not None
    assert found.frame == pytest.approx(999, abs=11)


def test_units_and_dimensions_that_hardly_move_do_not_matter():
    noise = np.random.default_rng(0).normal(0, 1e-4, N)
    plain, scaled = learn_references(SUCCESSFUL), learn_references([np.c_[s * [1000, 0.1], noise] for s in SUCCESSFUL])
    assert plain is not None
    assert scaled is not None
    assert scaled.moving.tolist() == [True, False, False]  # beside metres times 1000, the others hardly move
    alike = learn_references([s * 7 for s in SUCCESSFUL])
    assert alike is not None
    run = SUCCESSFUL[2][:25]
    assert match(run * 7, alike) == match(run, plain)


def test_nothing_is_said_without_enough_runs_or_of_another_arm():
    assert learn_references(SUCCESSFUL[: MIN_REFERENCES - 1]) is None
    assert learn_references([None, *SUCCESSFUL[:2]]) is None
    assert learn_references([np.zeros((N, 2))] * 4) is None
    known = learn_references([None, *SUCCESSFUL])
    assert known is not None
    assert known.runs == (1, 2, 3, 4)  # counted as they came
    assert match(None, known) is None
    assert match(np.zeros((N, 3)), known) is None
    assert match(SUCCESSFUL[0] + 50, known) is None  # like none of them at any time


def test_of_many_runs_some_are_looked_at_the_same_each_time():
    many = [way(o) for o in np.linspace(0, 1, 100)]
    known, again = learn_references(many), learn_references(many)
    assert known is not None
    assert again is not None
    assert len(known.runs) == MAX_REFERENCES
    assert known.runs == again.runs
    assert (known.runs[0], known.runs[-1]) == (0, 99)
