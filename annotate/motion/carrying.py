"""Steps of a run that carries objects: each closing of the gripper is an attempt, and each attempt has an outcome.

The gripper and the arm show the attempts; the task text says how many objects are to be carried and what they are
called. An arm that closes its gripper more often than there are objects has failed as often: in those attempts that
carried the least far.

Example: the text asks for one cup to be put on a plate, and the gripper closes twice. First it closes almost fully and
the arm moves 2 units until the gripper opens, then it stays half open and the arm moves 40 units. The usual distance is
40. The first attempt carried less than a tenth of it: it missed the cup. The second placed it. The steps are a grasp
that was not completed, a grasp that was, a placing, and "Done".
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal

import numpy as np

from annotate.label import EpisodeLabel, plain_label
from annotate.motion.config import MotionConfig
from annotate.motion.gripper_events import EMPTY_CLOSE_MARGIN, GripperCurve, GripperEvent, closings, next_opening
from annotate.motion.reference_runs import ReferenceMatch
from annotate.motion.signals import MotionRun, have_slow_grasps
from annotate.motion.stand_stills import split_at_stand_stills
from annotate.motion.task_text import Transfer
from annotate.segments import DONE, IDLE, STEP, Segment

type AttemptOutcome = Literal["placed", "dropped", "missed", "held"]
PLACED: Final = "placed"
DROPPED: Final = "dropped"  # lost after it was grasped
MISSED: Final = "missed"  # the gripper closed on nothing
HELD: Final = "held"  # a failed run ended with the object in its gripper

# Shares of the distance that an object is usually carried in this run
MISSED_SHARE = 0.1  # an attempt that carried less far missed
DROPPED_SHARE = 0.5  # an attempt of a failed run that carried less far lost its object
LEFT_SHARE = 0.05  # an arm that moves less after its gripper has opened has given up beside what it lost

LIFT_S = 0.3  # from a closed gripper to a lifted object
LAST_REACH_S = 1.0  # a movement after the last attempt that is at least this long is the way to the next object
AGREED = 0.7  # confidence of a label where text and attempts agree
DOUBTFUL = 0.6  # and where some attempts failed


@dataclass(frozen=True)
class Attempt:
    """One attempt to carry an object: from a closing of the gripper to the opening after it."""

    closes: int  # last frame before the gripper begins to close
    closed: int  # first frame at which it holds what it closed on
    opens: int  # last frame before it opens; the number of frames where it never does
    opened: int  # first frame at which it has let go
    carried: float  # how far the arm moved while the gripper was closed
    moved_after: float  # how far it moved from then to the next closing
    gripper_opening: float  # while it was closed; 0..1 is the gripper's range in the episode
    never_opened: bool


type _Step = tuple[str, int]  # its name and its number in the plan


@dataclass(frozen=True)
class _TransferSteps:
    reach: _Step | None
    grasp: _Step
    place: _Step

    @property
    def first(self) -> _Step:
        return self.reach or self.grasp


@dataclass(frozen=True)
class _Plan:
    """The planned steps of a task: those of its transfers, one after the other."""

    transfers: Sequence[Transfer]
    with_reach: bool

    @property
    def num_steps(self) -> int:
        return len(self.transfers) * (3 if self.with_reach else 2)

    def steps_of(self, transfer: int) -> _TransferSteps:
        names = self.transfers[transfer].steps(with_reach=self.with_reach)
        first = transfer * len(names)
        *reach, grasp, place = ((name, first + k) for k, name in enumerate(names))
        return _TransferSteps(reach[0] if reach else None, grasp, place)


def carrying_labels(
    runs: Sequence[MotionRun], transfers: Sequence[Transfer], config: MotionConfig
) -> dict[int, EpisodeLabel]:
    """Label the runs of a task by what its text says is to be carried; by their positions among the runs.

    Runs whose gripper contradicts the text have no label.
    """
    plan = _Plan(transfers, with_reach=have_slow_grasps(runs, config))
    labels = {}
    for i, run in enumerate(runs):
        label = _label(run, plan, runs)
        if label:
            labels[i] = label
    return labels


def _label(run: MotionRun, plan: _Plan, runs: Sequence[MotionRun]) -> EpisodeLabel | None:
    if not run.gripper_events:
        return None
    tries = attempts(run.gripper_events, run.activity, run.signals.grippers)
    results = outcomes(tries, len(plan.transfers), run.signals.success)
    if results is None:
        return None
    if run.match:
        results = _with_match(results, tries, run.match, runs[run.match.run].contact)
    return plain_label(_transfer_steps(run, tries, results, plan), plan.num_steps, run.signals.task)


def attempts(events: Sequence[GripperEvent], activity: np.ndarray, grippers: Sequence[GripperCurve]) -> list[Attempt]:
    """Each closing and what follows; `activity` [n] is how fast the arm moves, in any unit."""
    n = len(activity)
    relative_openings = [_of_own_range(gripper.opening) for gripper in grippers]
    moved_before = np.r_[0.0, np.cumsum(activity)]  # how far the arm has moved before each frame
    closed = closings(events)
    tries = []
    for i, closing in enumerate(closed):
        # The same hand opens again; meanwhile another one may close
        opening = next_opening(events, closing)
        opens = opened = n
        if opening is not None:
            opens, opened = max(opening.start, closing.end), max(opening.moment, closing.end)
        next_closing = closed[i + 1].start if i + 1 < len(closed) else n

        # The distances show later whether there was an object; the gripper's level shows whether it closed on one
        carried = moved_before[opens] - moved_before[closing.end]
        moved_after = moved_before[max(next_closing, opens)] - moved_before[opens]
        level = np.median(relative_openings[closing.arms[0]][closing.end : max(opens, closing.end + 1)])
        tries.append(
            Attempt(
                closes=closing.start,
                closed=closing.moment,
                opens=opens,
                opened=opened,
                carried=float(carried),
                moved_after=float(moved_after),
                gripper_opening=float(level),
                never_opened=opening is None,
            )
        )
    return tries


def _of_own_range(opening: np.ndarray) -> np.ndarray:
    """The opening [n] as a share of the episode's range."""
    return (opening - opening.min()) / (np.ptp(opening) or 1.0)


def outcomes(tries: Sequence[Attempt], num_transfers: int, success: bool | None) -> list[AttemptOutcome] | None:
    """What came of each attempt; None where text and attempts contradict each other.

    Example: of two attempts at one object that carried 3 and 56 units far, the first missed and the second placed it.
    """
    # Only a failed run may have fewer attempts than objects: it ended before it came to all of them
    if not tries or (success is not False and len(tries) < num_transfers):
        return None

    usual, failed = _usual_distance(tries, num_transfers)

    # Backwards, since the next attempt after a failure that did not fail is at the same object
    results: list[AttemptOutcome] = []
    retry: Attempt | None = None
    for i in reversed(range(len(tries))):
        attempt = tries[i]
        if i in failed or (success is False and _lost_its_object(attempt, usual)):
            results.append(_failure(attempt, retry, usual))
            continue
        retry = attempt
        # A run that is taken as finished may end with the object in the gripper, at its place
        is_held = attempt.never_opened and success is False
        results.append(HELD if is_held else PLACED)

    # A failed run that seems to have placed everything ended unfinished: its last placing did not count
    if success is False and PLACED in results and results.count(PLACED) >= num_transfers:
        results[results.index(PLACED)] = DROPPED
    return results[::-1]


def _usual_distance(tries: Sequence[Attempt], num_transfers: int) -> tuple[float, set[int]]:
    """How far an object is usually carried, and which attempts failed, since there are more than objects.

    The attempts that carried the farthest, as many as there are objects, show how far is usual; the others failed.
    """
    farthest_first = sorted(range(len(tries)), key=lambda i: -tries[i].carried)
    usual = float(np.median([tries[i].carried for i in farthest_first[:num_transfers]]))
    return usual, set(farthest_first[num_transfers:])


def _with_match(
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
    return gave_up or attempt.carried < DROPPED_SHARE * usual


def _failure(attempt: Attempt, retry: Attempt | None, usual: float) -> AttemptOutcome:
    """Did a failed attempt miss its object, or lose it on the way? `retry` grasped the same object later."""
    if attempt.carried < MISSED_SHARE * usual:
        return MISSED
    closed_further = retry is not None and attempt.gripper_opening < retry.gripper_opening - EMPTY_CLOSE_MARGIN
    return MISSED if closed_further else DROPPED


class _Tiling:
    """Segments laid one behind the other from frame 0, without gaps."""

    def __init__(self, num_frames: int, confidence: float) -> None:
        self.num_frames = num_frames
        self.confidence = confidence
        self.segments: list[Segment] = []
        self.end = 0  # of the last segment

    def add(self, name: str, step: int | None, end: int, *, completed: bool, kind: str = STEP) -> None:
        """Add a segment up to frame `end`, or to the end of the run; none where it would be empty."""
        end = min(end, self.num_frames)
        if end > self.end:
            self.segments.append(Segment(name, self.end, end, kind, completed, step, self.confidence))
            self.end = end


def _transfer_steps(
    run: MotionRun, tries: Sequence[Attempt], results: Sequence[AttemptOutcome], plan: _Plan
) -> list[Segment]:
    """Segments that tile the run."""
    # One attempt for each object of the text and no failure: text and gripper tell the same
    agreed = len(tries) == len(plan.transfers) and not run.failed
    tiling = _Tiling(len(run), AGREED if agreed else DOUBTFUL)

    # Each attempt is at the first object that has not been placed yet
    num_placed = 0
    for attempt, outcome in zip(tries, results, strict=True):
        if num_placed == len(plan.transfers):
            break
        _add_attempt(tiling, run, attempt, outcome, plan.steps_of(num_placed))
        num_placed += outcome == PLACED

    if tiling.end < len(run):
        _add_ending(tiling, run, results, plan, num_placed)
    return split_at_stand_stills(tiling.segments, run.stand_stills, run.signals.fps)


def _add_attempt(
    tiling: _Tiling, run: MotionRun, attempt: Attempt, outcome: AttemptOutcome, steps: _TransferSteps
) -> None:
    # An arm that failed to reach the object has missed it as well
    if steps.reach:
        tiling.add(*steps.reach, attempt.closes, completed=not (run.failed and outcome == MISSED))
    if outcome == MISSED:
        tiling.add(*steps.grasp, attempt.opens, completed=False)
        return
    lifted = min(attempt.closed + round(LIFT_S * run.signals.fps), attempt.opens, tiling.num_frames - 1)
    tiling.add(*steps.grasp, lifted, completed=True)
    place_end = attempt.opened if outcome == PLACED else attempt.opens
    tiling.add(*steps.place, place_end, completed=outcome == PLACED)


def _add_ending(
    tiling: _Tiling, run: MotionRun, results: Sequence[AttemptOutcome], plan: _Plan, num_placed: int
) -> None:
    """Add what follows the last attempt: nothing more to do, or the way to an object that was not reached."""
    all_placed = num_placed == len(plan.transfers)
    # A run that is known to have failed is never done, however many objects it has placed
    if all_placed and not run.failed:
        tiling.add("Done", None, len(run), completed=True, kind=DONE)
        return
    if not all_placed:
        first_step = plan.steps_of(num_placed).first
        if results[-1:] == [DROPPED]:
            # What was lost is to be grasped again, even if the arm does not move any more
            tiling.add(*first_step, max(run.final_rest, tiling.end + 1), completed=False)
        elif run.final_rest - tiling.end >= LAST_REACH_S * run.signals.fps and HELD not in results:
            tiling.add(*first_step, run.final_rest, completed=False)
    tiling.add("Stand still", None, len(run), completed=False, kind=IDLE)
