"""The cheapest path of a run through a reference: by hand in small cases, and against all paths in tiny ones."""

from dataclasses import replace
from itertools import pairwise, product

import numpy as np
import pytest

from annotate.transfer.alignment import SPARE_SHARE, Path, PathCosts, align

LEAVING = PathCosts(stay=0.1, skip=0.3, back=3.0, end=2.0, away=0.2, leave=0.5)
FREE = PathCosts(stay=0.0, skip=0.0)


def unlike(run: list[int], reference: list[int]) -> np.ndarray:
    """0 where a run shows the same as the reference, else 1."""
    return (np.array(run)[:, None] != np.array(reference)).astype(float)


def path(
    run: list[int],
    reference: list[int],
    pays: PathCosts = PathCosts(),
    still: tuple[int, ...] = (),
    spare: tuple[int, ...] = (),
) -> Path:
    is_still = np.isin(np.arange(len(run)), still)
    is_spare = np.isin(np.arange(len(reference)), spare)
    return align(unlike(run, reference), is_still, is_spare, pays)


def price(costs: np.ndarray, states: list[tuple[int, bool]], still: np.ndarray, spare: np.ndarray, pays: PathCosts):
    """What a path of states (moment of the reference, beside it) costs, counted one by one."""
    skip = np.where(spare, SPARE_SHARE, 1.0) * pays.skip
    first, is_beside = states[0]
    total = skip[:first].sum() + (costs[0, first] if is_beside else pays.leave + pays.away)
    for i, ((before, was_beside), (now, is_beside)) in enumerate(pairwise(states), 1):
        total += costs[i, now] if is_beside else pays.away
        total += pays.leave if was_beside != is_beside else 0.0
        if not is_beside:
            total += 0.0 if now == before else np.inf
        elif now == before:
            # To stay at a moment, or to go back to it, which nobody does for more
            total += min(pays.stay * (SPARE_SHARE if still[i] else 1.0), pays.back)
        else:
            total += skip[before + 1 : now].sum() if now > before else pays.back
    last, is_beside = states[-1]
    return total + (min(skip[last + 1 :].sum(), pays.end) if is_beside else pays.end)


@pytest.mark.parametrize("seed", range(12))
def test_no_path_is_cheaper(seed: int):
    draws = np.random.default_rng(seed)
    n, m = ((5, 3), (4, 4), (6, 2), (1, 4))[seed % 4]
    costs = draws.uniform(0, 2, (n, m))
    still, spare = draws.random(n) < 0.4, draws.random(m) < 0.4
    stay, skip, back, end, away, leave = draws.uniform(0.02, 0.8, 6)
    if seed % 3 == 0:
        pays = PathCosts(stay, skip, back, end=end)
    else:
        pays = PathCosts(stay, skip, back, end, away, leave)

    chosen = align(costs, still, spare, pays)
    chosen_states = list(zip(chosen.moments.tolist(), chosen.follows.tolist(), strict=True))
    every = product(product(range(m), (True, False)), repeat=n)
    cheapest = min(price(costs, list(states), still, spare, pays) for states in every)
    assert price(costs, chosen_states, still, spare, pays) == pytest.approx(cheapest)


def test_equal_runs_give_the_diagonal():
    same = path([0, 1, 2, 3, 4], [0, 1, 2, 3, 4])
    assert same.moments.tolist() == [0, 1, 2, 3, 4]
    assert same.follows.all()


def test_slower_and_faster_runs():
    assert path([0, 0, 0, 1, 1, 2, 2, 2, 3], [0, 1, 2, 3]).moments.tolist() == [0, 0, 0, 1, 1, 2, 2, 2, 3]
    assert path([0, 2, 4], [0, 1, 2, 3, 4]).moments.tolist() == [0, 2, 4]


def test_a_run_that_stands_still_stays_at_its_moment():
    """To stay costs a tenth of what it costs a run that moves, and is supposed to get on."""
    costs = np.tile([0.0, 0.2, 0.2, 0.2], (6, 1))
    pays, none = PathCosts(stay=0.3, skip=0.05), np.zeros(4, bool)
    assert align(costs, np.ones(6, bool), none, pays).moments.tolist() == [0] * 6
    moves = align(costs, np.zeros(6, bool), none, pays).moments
    assert moves[-1] == 3
    assert len(set(moves.tolist())) == 4


def test_a_run_that_ends_early_needs_a_price_for_it():
    run, reference = [0, 1, 2], [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11]
    assert path(run, reference, PathCosts(end=1.0)).moments.tolist() == [0, 1, 2]
    # Without one the rest is passed over; where that costs much, the last moment is gone to
    dear = PathCosts(skip=5.0)
    assert path([0, 1, 2, 2, 2], [0, 1, 2, 3, 4], dear).moments.tolist() == [0, 1, 2, 3, 4]
    assert path([0, 1, 2, 2, 2], [0, 1, 2, 3, 4], PathCosts(skip=5.0, end=1.0)).moments.tolist() == [0, 1, 2, 2, 2]


def test_going_back_is_done_where_it_pays():
    run, reference = [0, 1, 2, 3, 1, 2, 3, 4], [0, 1, 2, 3, 4]
    assert path(run, reference, PathCosts(back=1.0)).moments.tolist() == run
    forwards = path(run, reference, PathCosts(back=20.0)).moments
    assert (np.diff(forwards) >= 0).all()
    assert (np.diff(path(run, reference, PathCosts(back=np.inf)).moments) >= 0).all()


def test_leaving_the_reference_and_coming_back():
    """Beside it until 2, at something else for four moments, then on."""
    run, reference = [0, 1, 2, 99, 99, 99, 99, 3, 4], [0, 1, 2, 3, 4]
    left = path(run, reference, LEAVING)
    assert left.follows.tolist() == [True, True, True, False, False, False, False, True, True]
    assert left.moments[[0, 1, 2, 7, 8]].tolist() == [0, 1, 2, 3, 4]
    assert (left.moments[3:7] == 2).all()

    # Away from it costs something: a run that cannot leave, or that is unlike for a moment only, follows all the time
    assert path(run, reference).follows.all()
    assert path([0, 1, 99, 3, 4], reference, LEAVING).follows.all()


def test_leaving_the_reference_for_good():
    run, reference = [0, 1, *[99] * 8], [0, 1, 2, 3, 4, 5, 6, 7, 8, 9]
    left = path(run, reference, LEAVING)
    assert left.follows.tolist() == [True, True] + [False] * 8
    assert (left.moments[2:] == 1).all()
    assert path(run, reference, PathCosts(end=2.0)).follows.all()


def test_a_run_that_never_follows_is_away_from_its_start():
    assert not path([99] * 12, [0, 1, 2], replace(LEAVING, end=1.0)).follows.any()


def test_spare_moments_are_passed_over_nearly_free():
    """A detour of ten moments: the run does not show it, yet is a little like the first of it."""
    reference = [0, 1, *range(50, 60), 2, 3]
    pays, spare = PathCosts(skip=0.3), tuple(range(2, 12))
    assert path([0, 1, 2, 3], reference, pays, spare=spare).moments.tolist() == [0, 1, 12, 13]

    # Where each moment that is passed over costs its full price, a run is rather laid beside what it does not show
    costs = np.vstack([unlike([0, 1], reference), np.full((2, 14), 0.9)])
    costs[2:, 12:] = 1.0
    costs[2, 12] = costs[3, 13] = 0.0
    ends_early = PathCosts(skip=0.3, end=0.5)
    spared = np.isin(np.arange(14), spare)
    still = np.zeros(4, bool)
    assert align(costs, still, spared, ends_early).moments.tolist() == [0, 1, 12, 13]
    assert align(costs, still, spared & False, ends_early).moments.max() < 12


def test_of_free_paths_each_moment_is_the_likest():
    draws = np.random.default_rng(5)
    costs = draws.random((30, 20))
    free = PathCosts(stay=0.0, skip=0.0, back=0.0)
    chosen = align(costs, np.zeros(30, bool), np.zeros(20, bool), free)
    assert chosen.moments.tolist() == costs.argmin(axis=1).tolist()
