"""Outcomes of a run's attempts to carry objects: placed, dropped, missed, or held at the end.

An arm that closes its gripper more often than there are objects has failed as often: in those attempts that carried the
least far.
"""

from collections.abc import Sequence
from statistics import median
from typing import Final, Literal

import numpy as np

from annotate.motion.attempts import BROUGHT_SHARE, Attempt
from annotate.motion.gripper_events import EMPTY_CLOSE_MARGIN
from annotate.motion.reference_runs import ReferenceMatch
from annotate.motion.task_text import Transfer

type AttemptOutcome = Literal["placed", "dropped", "missed", "held"]
PLACED: Final = "placed"
DROPPED: Final = "dropped"  # lost after it was grasped
MISSED: Final = "missed"  # the gripper closed on nothing
HELD: Final = "held"  # the run ended with the object in its gripper

# Shares of the distance that an object is usually carried in this run
MISSED_SHARE = 0.1  # an attempt that carried less far missed its object
LEFT_SHARE = 0.05  # an arm that moves less after its gripper has opened has given up beside what it lost


def outcomes(
    tries: Sequence[Attempt], transfers: Sequence[Transfer], success: bool | None, state: np.ndarray | None
) -> list[AttemptOutcome]:
    """The outcome of each attempt; `state` [n, d] of the arm.

    Example: of two attempts at one object that carried 3 and 56 units far, the first missed and the second placed it.
    """
    num_transfers, last = len(transfers), transfers[-1]
    may_stay_held = last.held_by is not None or not last.let_go
    # A gripper that closes on the way home is never opened again
    opened_first = success is not False and not may_stay_held
    usual, placing = _farthest(_holding(tries, num_transfers, success), num_transfers, opened_first=opened_first)

    # Backwards, since the next attempt after a failure that did not fail is at the same object
    results: list[AttemptOutcome] = []
    retry: Attempt | None = None
    for attempt in reversed(tries):
        if attempt not in placing or (success is False and _lost_its_object(attempt, usual)):
            results.append(_failure(attempt, retry, usual, state))
            continue
        retry = attempt
        # What is in the gripper at the end was not placed, unless the source says so, or nobody asks for it
        is_held = attempt.never_opened and not (success or (success is None and may_stay_held))
        results.append(HELD if is_held else PLACED)

    # A failed run that seems to have placed everything ended unfinished: its last placing did not count
    if success is False and PLACED in results and results.count(PLACED) >= num_transfers:
        results[results.index(PLACED)] = DROPPED
    return results[::-1]


def _holding(tries: Sequence[Attempt], num_transfers: int, success: bool | None) -> list[Attempt]:
    """The attempts that held something. A successful run placed all its objects, whatever its gripper shows."""
    holding = [attempt for attempt in tries if not attempt.is_empty]
    return list(tries) if success and len(holding) < num_transfers else holding


def _farthest(holding: Sequence[Attempt], num_transfers: int, *, opened_first: bool) -> tuple[float, list[Attempt]]:
    """How far an object is usually carried, and the attempts that did: the farthest, as many as there are objects."""
    ranked = sorted(holding, key=lambda attempt: (opened_first and attempt.never_opened, -attempt.carried))
    farthest = ranked[:num_transfers]
    return float(median(attempt.carried for attempt in farthest)) if farthest else 0.0, farthest


def corrected_by_match(
    results: Sequence[AttemptOutcome], tries: Sequence[Attempt], match: ReferenceMatch, contact: int | None
) -> list[AttemptOutcome]:
    """The outcomes in a failed run, corrected by its match. `contact`: where its reference run grasps.

    A run that came no farther than its reference before that grasped nothing, and no run did after it diverged.
    """
    # It never came to where its reference closed the gripper on the object
    if contact is not None and match.frame < contact:
        return [MISSED] * len(tries)
    if match.diverged_at is None:
        return list(results)
    return [
        MISSED if attempt.closed > match.diverged_at else outcome
        for attempt, outcome in zip(tries, results, strict=True)
    ]


def _lost_its_object(attempt: Attempt, usual: float) -> bool:
    """In a failed run: the object was carried less far than is usual, or the arm gave up beside it."""
    gave_up = not attempt.never_opened and attempt.moved_after < LEFT_SHARE * usual
    return gave_up or attempt.carried < BROUGHT_SHARE * usual


def _failure(attempt: Attempt, retry: Attempt | None, usual: float, state: np.ndarray | None) -> AttemptOutcome:
    """Did a failed attempt miss its object, or lose it on the way? `retry` grasped the same object later."""
    if attempt.is_empty or attempt.carried < MISSED_SHARE * usual:
        return MISSED
    if retry is None:
        return DROPPED
    if retry.widest - attempt.widest > EMPTY_CLOSE_MARGIN:
        return MISSED
    # A gripper that shows nothing: an object that is grasped again where it was before has not left
    if attempt.is_empty is None and state is not None and not attempt.never_opened:
        closed, opened, closed_again = (
            state[min(k, len(state) - 1)] for k in (attempt.closed, attempt.opens, retry.closed)
        )
        if np.linalg.norm(closed_again - closed) < np.linalg.norm(closed_again - opened):
            return MISSED
    return DROPPED
