"""Laying a run beside a reference: which moment of the reference each moment of the run is like.

Dynamic time warping with three freedoms that runs need. The run may end before the reference does; it may go back, as
after a lost thing; and it may leave the reference, doing something else, and come back or not. The cheapest path
through the states (moment of the reference, beside it or away from it) is found by the Viterbi recursion.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

SPARE_SHARE = 0.1  # of the cost of a moment that is stayed at or passed over, where runs differ in that
NEVER = np.inf
AT_ONCE = 32  # runs that are aligned side by side


@dataclass(frozen=True)
class PathCosts:
    """What a path pays, in units of how unlike two moments of the same kind usually are, times the weight of one.

    stay: for a moment of the run that does not advance. skip: for a moment of the reference that is passed over. back:
    for going back. end: for ending before the reference does, at most. away: for a moment away from the reference.
    leave: for leaving it, and for coming back.
    """

    stay: float = 0.1
    skip: float = 0.3
    back: float = 2.0
    end: float = NEVER
    away: float = NEVER
    leave: float = NEVER


@dataclass(frozen=True)
class Path:
    """moments: int64 [n], of the reference. follows: bool [n], False where the run is away from it."""

    moments: np.ndarray
    follows: np.ndarray


def along(costs: np.ndarray, path: Path) -> np.ndarray:
    """The costs [n] that a path meets, of costs [n, m]."""
    return costs[np.arange(len(costs)), path.moments]


def align(costs: np.ndarray, is_still: np.ndarray, is_spare: np.ndarray, pays: PathCosts) -> Path:
    """The cheapest path of a run through a reference; costs [n, m] of showing the same moment, all finite.

    is_still [n]: nothing moves at that moment of the run. is_spare [m]: a run may well lack it.

    Example: of costs that are 0 where i == j, and 1 elsewhere, the path is 0, 1, 2, ...
    """
    return align_all([costs], [is_still], is_spare, pays)[0]


def align_all(
    costs: Sequence[np.ndarray], is_still: Sequence[np.ndarray], is_spare: np.ndarray, pays: PathCosts
) -> list[Path]:
    """`align` of several runs with one reference, AT_ONCE of them side by side: much faster than one by one."""
    moves = _Moves(np.where(is_spare, SPARE_SHARE, 1.0) * pays.skip, pays.back)
    paths: list[Path] = []
    for first in range(0, len(costs), AT_ONCE):
        some = slice(first, first + AT_ONCE)
        paths += _side_by_side(costs[some], is_still[some], moves, pays)
    return paths


def _side_by_side(
    costs: Sequence[np.ndarray], is_still: Sequence[np.ndarray], moves: "_Moves", pays: PathCosts
) -> list[Path]:
    lengths = np.array([len(own) for own in costs])
    runs, longest, m = len(costs), int(lengths.max()), costs[0].shape[1]
    # Runs that are shorter wait at their end
    together, stay = np.zeros((longest, runs, m)), np.zeros((longest, runs))
    for r, (own, still) in enumerate(zip(costs, is_still, strict=True)):
        together[: len(own), r] = own
        stay[: len(own), r] = np.where(still, SPARE_SHARE, 1.0) * pays.stay

    # How cheap each state can be at the present moment, and which state led to it: beside the reference, or away
    beside = moves.skipped_before + together[0]
    away = np.broadcast_to(moves.skipped_before + pays.leave + pays.away, (runs, m))
    came_from = np.zeros((longest, 2, runs, m), np.int32)
    for i in range(1, longest):
        followed, from_beside = moves.step(beside, stay[i])
        if np.isfinite(pays.leave):
            returned, from_away = moves.step(away + pays.leave, stay[i])
            is_back = returned < followed
            followed = np.where(is_back, returned, followed)
            from_beside = np.where(is_back, m + from_away, from_beside)
            leaves = beside + pays.leave < away
            came_from[i, 1] = moves.moments + np.where(leaves, 0, m)
            away_next = np.where(leaves, beside + pays.leave, away) + pays.away
        else:
            away_next = away
        came_from[i, 0] = from_beside
        goes_on = (i < lengths)[:, None]
        beside = np.where(goes_on, followed + together[i], beside)
        away = np.where(goes_on, away_next, away)

    # What is left of the reference is passed over, or the run ends before it
    ends = np.minimum(moves.skipped_after, pays.end)
    last = np.concatenate([beside + ends, away + pays.end], axis=1).argmin(axis=1)
    return [_traced(came_from[: lengths[r], :, r], int(last[r])) for r in range(runs)]


def _traced(came_from: np.ndarray, state: int) -> Path:
    """The path that ends in a state; came_from [n, 2, m]."""
    n, _, m = came_from.shape
    states = np.empty(n, np.int64)
    for i in range(n - 1, -1, -1):
        states[i] = state
        state = int(came_from[i, state // m, state % m])
    return Path(states % m, states < m)


class _Moves:
    """From one moment of the reference to another while runs go one moment on."""

    def __init__(self, skip: np.ndarray, back: float) -> None:
        """`skip` [m]: the cost of passing over each moment."""
        passed = np.concatenate([[0.0], np.cumsum(skip)])
        self.moments = np.arange(len(skip))
        self.skipped_before = passed[:-1]
        self.skipped_after = passed[-1] - passed[1:]
        self._skipped_with = passed[1:]
        self._back = back

    def step(self, before: np.ndarray, stay: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The lowest cost at each moment [runs, m], and the moment before: stayed at, advanced or gone back from.

        before [runs, m]: the lowest costs so far. stay [runs].
        """
        lowest, origin = before + stay[:, None], self.moments

        # From any earlier moment, with those between passed over
        cheapest, which = _running_minimum(before - self._skipped_with)
        advanced = np.full(before.shape, NEVER)
        advanced[:, 1:] = cheapest[:, :-1] + self.skipped_before[1:]
        is_better = advanced < lowest
        lowest = np.where(is_better, advanced, lowest)
        origin = np.where(is_better, np.roll(which, 1, axis=1), origin)

        # From any later one
        if np.isfinite(self._back):
            cheapest, which = _running_minimum(before[:, ::-1])
            returned = cheapest[:, ::-1] + self._back
            is_better = returned < lowest
            lowest = np.where(is_better, returned, lowest)
            origin = np.where(is_better, (len(self.moments) - 1 - which)[:, ::-1], origin)
        return lowest, origin


def _running_minimum(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The least of the values of each row so far, and the last place of it."""
    least = np.minimum.accumulate(values, axis=1)
    return least, np.maximum.accumulate(np.where(values <= least, np.arange(values.shape[1]), 0), axis=1)
