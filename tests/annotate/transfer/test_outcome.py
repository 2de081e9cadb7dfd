"""Did a run end as its references did? By how it ends, and by how its steps end."""

from dataclasses import replace

import numpy as np
import pytest

from annotate.motion import MotionConfig
from annotate.transfer.alignment import Path
from annotate.transfer.carrying_over import Shown
from annotate.transfer.moments import Moments, task_moments
from annotate.transfer.outcome import (
    INCOMPLETE_AT,
    EndDistance,
    distances_at_ends,
    end_distance,
    failure_probabilities,
    incomplete_steps,
)
from annotate.transfer.runs import SeenRun
from tests.kits.transfer_runs import cuts_of, pace, run_along, steps_of

USUAL = EndDistance(pictures=1.0, state=1.0, first_pictures=1.0, shorter=0.0)


def probability(end: EndDistance, others: int = 4) -> float:
    first, *_ = failure_probabilities([end, *[USUAL] * others])
    assert first is not None
    return first


def observed(*runs: SeenRun) -> list[Moments]:
    return task_moments(runs, 10, MotionConfig())


def test_an_odd_end_speaks_for_failure():
    usual = probability(USUAL)
    assert usual < 0.3
    assert probability(replace(USUAL, pictures=4.0)) > 0.7
    assert probability(replace(USUAL, state=4.0)) > 0.7
    assert probability(replace(USUAL, pictures=0.5, state=0.5)) < usual


def test_another_scene_explains_another_end():
    odd = replace(USUAL, pictures=3.0)
    assert probability(replace(odd, first_pictures=3.0)) < probability(odd)


def test_a_run_shorter_than_all_references_speaks_for_failure():
    assert probability(replace(USUAL, shorter=float(np.log(2)))) > 0.65


def test_without_state_pictures_count_more():
    """And without both nothing shows it."""

    def known(pictures: float | None) -> float | None:
        rest = [replace(USUAL, state=None, pictures=None if pictures is None else 1.0)] * 3
        return failure_probabilities([EndDistance(pictures, None, 1.0, 0.0), *rest])[0]

    with_state = probability(replace(USUAL, pictures=2.0)), probability(USUAL)
    without = known(2.0), known(1.0)
    assert without[0] is not None
    assert without[1] is not None
    assert without[0] / without[1] > with_state[0] / with_state[1]
    assert known(None) is None


def test_too_few_runs_show_nothing_usual():
    assert failure_probabilities([USUAL, replace(USUAL, pictures=9.0)]) == [None, None]
    # One without references gets none and does not count
    assert failure_probabilities([USUAL, None, USUAL]) == [None, None, None]
    shown = failure_probabilities([USUAL, None, USUAL, USUAL])
    assert [p is None for p in shown] == [False, True, False, False]


def test_runs_that_end_alike_to_the_last_bit():
    same = replace(USUAL, pictures=0.0, state=0.0, first_pictures=0.0)
    assert failure_probabilities([same] * 4) == [None] * 4
    others = [replace(same, state=1.0)] * 3
    assert all(0 <= p <= 1 for p in failure_probabilities([same, *others]) if p is not None)


def test_probabilities_do_not_depend_on_the_order():
    draws = np.random.default_rng(3)
    ends = [EndDistance(*draws.uniform(0.5, 3, 3), shorter=0.1 * k) for k in range(6)]
    assert failure_probabilities(ends[::-1]) == failure_probabilities(ends)[::-1]


def test_distances_of_a_runs_end():
    """The nearest reference counts; a run that stops halfway ends elsewhere, and is shorter."""
    whole, other, stopped = pace(100, 1), pace(120, 2), pace(100, 3)[:50]
    run, reference, short = observed(*(run_along(p, k) for k, p in enumerate((whole, other, stopped))))
    alike, odd = end_distance(run, [reference]), end_distance(short, [reference])
    for near, far in ((alike.pictures, odd.pictures), (alike.state, odd.state)):
        assert near is not None
        assert far is not None
        assert far > 3 * near
    assert alike.first_pictures is not None
    assert odd.first_pictures is not None
    assert odd.first_pictures < 2 * alike.first_pictures
    assert alike.shorter == pytest.approx(np.log(60 / 50))
    assert end_distance(reference, [run]).shorter == 0.0
    assert odd.shorter == pytest.approx(np.log(60 / 25))
    assert end_distance(short, [reference, short]) == EndDistance(0.0, 0.0, 0.0, 0.0)


def test_runs_without_pictures_or_state_have_no_such_distance():
    blind = [replace(run_along(pace(80, k), k), frames=np.array([], np.int64), pictures=()) for k in (0, 1)]
    run, reference = observed(*blind)
    end = end_distance(run, [reference])
    assert (end.pictures, end.first_pictures) == (None, None)
    assert end.state is not None


def test_how_unlike_a_run_is_where_it_ends_a_step():
    """It looks otherwise around the end of the first step only; the last one ends with the run."""
    phases = pace(100, 4)
    run, its = observed(run_along(phases, 0), run_along(phases, 1))
    reference = Shown(its, steps_of(phases), {})
    path = Path(np.arange(len(run)), np.ones(len(run), bool))
    costs = np.ones((len(run), len(its)))
    first = cuts_of(phases)[0] // 2
    costs[first - 5 : first + 5] = 4.0
    at_ends = distances_at_ends(costs, run, reference, path)
    assert at_ends == {0: 4.0, 1: 1.0}

    # Steps that the run does not reach are not judged
    stuck = Path(np.minimum(path.moments, first + 1), path.follows)
    assert set(distances_at_ends(costs, run, reference, stuck)) == {0}
    failed = Shown(its, [replace(s, completed=s.step != 0) for s in steps_of(phases)], {})
    assert set(distances_at_ends(costs, run, failed, path)) == {1}


def test_steps_that_end_otherwise_than_is_usual():
    usual = {0: 1.0, 1: 2.0}
    assert incomplete_steps({0: 1.0, 1: 2.0}, usual) == set()
    assert incomplete_steps({0: INCOMPLETE_AT + 0.01, 1: 2.0}, usual) == {0}
    assert incomplete_steps({0: 1.0, 1: 2 * INCOMPLETE_AT + 0.01, 2: 99.0}, usual) == {1}
    # Runs of one scene are hardly apart at all: a little more than that is not otherwise
    assert incomplete_steps({0: 0.1, 1: 0.6}, {0: 0.01, 1: 0.01}) == {1}
