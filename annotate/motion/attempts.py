"""Attempts of a run to carry objects: each closing of a gripper up to its next opening, as gripper and arm show it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import median

import numpy as np

from annotate.motion.gripper_events import closings, next_opening
from annotate.motion.signals import LIFT_S, MotionRun, lifts

BROUGHT_SHARE = 0.5  # of the distance that an object is usually carried: what was carried as far was brought somewhere
SHOWS_HOLDING = 0.1  # of its range in the dataset: a gripper that stays as open on an object shows that it holds it
EMPTY_SHARE = 0.25  # of that: a gripper that closes further is empty


@dataclass(frozen=True)
class Attempt:
    """One attempt to carry an object: from a closing of the gripper to the opening after it."""

    closes: int  # last frame before the gripper begins to close
    closed: int  # first frame at which it holds what it closed on
    lifts: int  # first frame at which the arm goes away with it
    opens: int  # last frame before it opens; the number of frames where it never does
    opened: int  # first frame at which it has let go
    let_go: int  # first frame at which it is open again
    carried: float  # how far the arm moved while the gripper was closed
    moved_after: float  # how far it moved from then to the next closing
    openings: Mapping[int, float]  # of each of its grippers while it was closed; 0..1 of its range in the dataset
    never_opened: bool
    is_empty: bool | None = None  # as far closed as an empty gripper; None: the gripper does not show it

    @property
    def widest(self) -> float:
        return max(self.openings.values())


def attempts(run: MotionRun) -> list[Attempt]:
    """Each closing of a gripper and what follows; whether it holds something is not judged yet."""
    n = len(run)
    moved_before = np.r_[0.0, np.cumsum(run.activity)]  # how far the arm has moved before each frame
    closed = closings(run.gripper_events)
    tries = []
    for i, closing in enumerate(closed):
        # The same hand opens again; meanwhile another one may close
        opening = next_opening(run.gripper_events, closing)
        opens = opened = let_go = n
        if opening is not None:
            opens, opened = max(opening.start, closing.end), max(opening.moment, closing.end)
            let_go = max(opening.end, opened + round(LIFT_S * run.signals.fps))
        # What one hand holds when the other closes is that one's from then on
        next_closing = max(closed[i + 1].start, closing.end) if i + 1 < len(closed) else n
        opens, opened, let_go = (min(frame, next_closing) for frame in (opens, opened, let_go))

        # The distances show later whether there was an object; the gripper's level shows whether it closed on one
        carried = moved_before[opens] - moved_before[closing.end]
        moved_after = moved_before[max(next_closing, opens)] - moved_before[opens]
        while_closed = slice(closing.end, max(opens, closing.end + 1))
        grippers = run.signals.grippers
        tries.append(
            Attempt(
                closes=closing.start,
                closed=closing.moment,
                lifts=lifts(run, closing.moment),
                opens=opens,
                opened=opened,
                let_go=let_go,
                carried=float(carried),
                moved_after=float(moved_after),
                openings={arm: float(np.median(grippers[arm].opening[while_closed])) for arm in closing.arms},
                never_opened=opening is None,
            )
        )
    return tries


def judged_by_level(runs: Sequence[MotionRun], tries_of_run: Sequence[Sequence[Attempt]]) -> list[list[Attempt]]:
    """The attempts at one object: how far open a gripper stays on it tells which of them closed on nothing.

    A thin object may show no more than nothing does: what was carried as far as usual and let go there was held.
    """
    num_grippers = max((len(run.signals.grippers) for run in runs), default=0)
    on_object = {arm: _opening_on_object(arm, runs, tries_of_run) for arm in range(num_grippers)}
    usual = median(max((a.carried for a in tries if not a.never_opened), default=0.0) for tries in tries_of_run)

    def is_empty(attempt: Attempt) -> bool | None:
        was_brought = not attempt.never_opened and attempt.carried >= BROUGHT_SHARE * usual
        return None if was_brought else _is_empty(attempt, on_object)

    return [[replace(a, is_empty=is_empty(a)) for a in tries] for tries in tries_of_run]


def _opening_on_object(arm: int, runs: Sequence[MotionRun], tries_of_run: Sequence[Sequence[Attempt]]) -> float | None:
    """How far open a gripper is on the object, 0..1 of its range; None where it does not show that it holds it."""
    grippers = [run.signals.grippers[arm] for run in runs if arm < len(run.signals.grippers)]
    own = [[attempt for attempt in tries if arm in attempt.openings] for tries in tries_of_run]
    farthest = [max(tries, key=lambda attempt: attempt.carried) for tries in own if tries]
    # The fingers of a hand close round an object, however thick
    if not farthest or any(gripper.is_hand for gripper in grippers):
        return None
    opening = float(median(attempt.openings[arm] for attempt in farthest))
    return opening if opening >= SHOWS_HOLDING else None


def _is_empty(attempt: Attempt, on_object: Mapping[int, float | None]) -> bool | None:
    """Did it close nearly as far as the gripper can? Of two hands that close together, both."""
    verdicts: list[bool] = []
    for arm, opening in attempt.openings.items():
        usual = on_object[arm]
        if usual is None:
            return None
        verdicts.append(opening <= EMPTY_SHARE * usual)
    return all(verdicts)
