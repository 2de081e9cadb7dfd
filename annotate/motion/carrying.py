"""Steps of a run that carries objects: each closing of the gripper is an attempt, and each attempt has an outcome.

The gripper and the arm show the attempts (`attempts`) and what came of them (`attempt_outcomes`); the task text says
how many objects are to be carried and what they are called.

Example: the text asks for one cup to be put on a plate, and the gripper closes twice. First it closes almost fully and
the arm moves 2 units until the gripper opens, then it stays half open and the arm moves 40 units. The usual distance is
40. The first attempt carried less than a tenth of it: it missed the cup. The second placed it. The steps are a grasp
that was not completed, a grasp that was, a placing, and "Done".
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from statistics import median_low

import numpy as np

from annotate.label import EpisodeLabel, plain_label
from annotate.motion.attempt_outcomes import (
    DROPPED,
    HELD,
    MISSED,
    PLACED,
    AttemptOutcome,
    corrected_by_match,
    outcomes,
)
from annotate.motion.attempts import Attempt, attempts, judged_by_level
from annotate.motion.config import MotionConfig
from annotate.motion.signals import LIFT_S, MIN_RUNS, MotionRun, have_slow_grasps
from annotate.motion.stand_stills import LEAST_STEP_S, split_at_stand_stills
from annotate.motion.task_text import COARSE, FINE, WITH_REACH, StepPart, StepParts, Transfer, unnamed_transfers
from annotate.motion.way_home import way_home
from annotate.segments import IDLE, STEP, Segment

MOST_RUNS = 0.5  # of a task: what more of them show is usual
OVER_GOAL = 0.9  # of how far the arm goes out of the straight line to the goal: from there it comes down
LAST_REACH_S = 1.0  # a movement after the last attempt that is at least this long is the way to the next object

type _Step = tuple[str, int]  # its name and its number in the plan


@dataclass(frozen=True)
class TransferPlan:
    """The planned steps of a task: those of its transfers, one after the other."""

    transfers: Sequence[Transfer]
    parts: StepParts

    @property
    def step_names(self) -> list[str]:
        return [name for transfer in self.transfers for name in transfer.steps(self.parts).values()]

    @property
    def num_steps(self) -> int:
        return len(self.step_names)

    def steps_of(self, transfer: int) -> dict[StepPart, _Step]:
        """The steps of a transfer in time, by what is done in each."""
        first = sum(len(earlier.steps(self.parts)) for earlier in self.transfers[:transfer])
        steps = self.transfers[transfer].steps(self.parts)
        return {part: (name, first + k) for k, (part, name) in enumerate(steps.items())}


def carrying_labels(
    runs: Sequence[MotionRun], transfers: Sequence[Transfer], config: MotionConfig
) -> dict[int, EpisodeLabel]:
    """Label the runs of a task by what its text says is to be carried; by their positions among the runs.

    Runs whose gripper contradicts the text have no label.
    """
    tries_of_run = [attempts(run) for run in runs]
    # The level of a gripper tells an object from nothing only where there is one object
    if len(transfers) == 1:
        tries_of_run = judged_by_level(runs, tries_of_run)
    transfers = [_as_shown(transfer, runs, tries_of_run) for transfer in transfers]
    plan = _plan(transfers, runs, config)
    all_carry = _mostly_carry(tries_of_run, len(transfers))

    labels = {}
    for i, (run, tries) in enumerate(zip(runs, tries_of_run, strict=True)):
        label = _label(run, tries, plan, runs, may_lack=run.failed or all_carry)
        if label:
            labels[i] = label
    return labels


def _mostly_carry(tries_of_run: Sequence[Sequence[Attempt]], num_transfers: int) -> bool:
    """Do most runs of the task close their gripper for each object? One that does so less often is unfinished then."""
    enough = [len(tries) >= num_transfers for tries in tries_of_run]
    return len(enough) >= MIN_RUNS and enough.count(True) > MOST_RUNS * len(enough)


def _as_shown(transfer: Transfer, runs: Sequence[MotionRun], tries_of_run: Sequence[Sequence[Attempt]]) -> Transfer:
    """An object that is only to be lifted, yet that most runs let go of and leave, is carried somewhere."""
    left = [
        run.final_rest - tries[-1].opened >= LEAST_STEP_S * run.signals.fps
        for run, tries in zip(runs, tries_of_run, strict=True)
        if tries and not run.failed
    ]
    return replace(transfer, held_by=None) if transfer.held_by and left and median_low(left) else transfer


def unnamed_carrying_labels(runs: Sequence[MotionRun], config: MotionConfig) -> dict[int, EpisodeLabel]:
    """Label the runs of a task whose text does not say what is carried; by their positions among the runs.

    Each closing carries one object; where MIN_RUNS show one, no more than is usual for the task. Runs without any have
    no label.
    """
    tries_of_run = [attempts(run) for run in runs]
    grasping = [i for i, tries in enumerate(tries_of_run) if tries]
    if not grasping:
        return {}
    usual = median_low(len(tries_of_run[i]) for i in grasping) if len(grasping) >= MIN_RUNS else None
    stay_held = median_low(tries_of_run[i][-1].never_opened for i in grasping)

    labels = {}
    for i in grasping:
        count = min(usual or len(tries_of_run[i]), len(tries_of_run[i]))
        plan = _plan(unnamed_transfers(count, last_stays_held=stay_held), runs, config)
        label = _label(runs[i], tries_of_run[i], plan, runs, may_lack=runs[i].failed)
        if label:
            labels[i] = label
    return labels


def _plan(transfers: Sequence[Transfer], runs: Sequence[MotionRun], config: MotionConfig) -> TransferPlan:
    """Hands that take their time show every part of a transfer; of a carry the end is seen in the arm's state."""
    if not have_slow_grasps(runs, config):
        return TransferPlan(transfers, COARSE)
    has_states = all(run.signals.state is not None for run in runs)
    return TransferPlan(transfers, FINE if has_states else WITH_REACH)


def _label(
    run: MotionRun, tries: Sequence[Attempt], plan: TransferPlan, runs: Sequence[MotionRun], *, may_lack: bool
) -> EpisodeLabel | None:
    """None where text and attempts contradict each other: only an unfinished run may lack attempts (`may_lack`)."""
    if len(tries) < len(plan.transfers) and not (may_lack and not run.signals.success):
        return None
    # A run too short for the plan shows something else
    is_too_short = len(run) <= plan.num_steps * max(2, LEAST_STEP_S * run.signals.fps)
    if is_too_short or (run.failed and not tries):
        return None
    results = outcomes(tries, plan.transfers, run.signals.success, run.signals.state)
    if run.match:
        results = corrected_by_match(results, tries, run.match, runs[run.match.run].contact)
    segments = _transfer_steps(run, tries, results, plan)
    return plain_label(segments, plan.num_steps, run.signals.task, step_names=plan.step_names)


# Segments


class _Tiling:
    """Segments laid one behind the other from frame 0, without gaps."""

    def __init__(self, num_frames: int) -> None:
        self.num_frames = num_frames
        self.segments: list[Segment] = []
        self.end = 0  # of the last segment

    def add_step(self, step: _Step, end: int, *, completed: bool = True, left: int = 0) -> None:
        """Add an attempt at a step up to frame `end`; at least one frame long, and `left` frames before the end."""
        self.add(*step, max(min(end, self.num_frames - left), self.end + 1), completed=completed)

    def add(self, name: str, step: int | None, end: int, *, completed: bool, kind: str = STEP) -> None:
        """Add a segment up to frame `end`, or to the end of the run; none where it would be empty."""
        end = min(end, self.num_frames)
        if end > self.end:
            self.segments.append(Segment(name, self.end, end, kind, completed, step))
            self.end = end


def _transfer_steps(
    run: MotionRun, tries: Sequence[Attempt], results: Sequence[AttemptOutcome], plan: TransferPlan
) -> list[Segment]:
    """Segments that tile the run."""
    tiling = _Tiling(len(run))

    # Each attempt is at the first object that has not been placed yet
    num_placed = 0
    for attempt, outcome in zip(tries, results, strict=True):
        if num_placed == len(plan.transfers):
            break
        _add_attempt(tiling, run, attempt, outcome, plan, num_placed)
        num_placed += outcome == PLACED

    # A run that is known to have failed is never done, however many objects it has placed
    is_done = num_placed == len(plan.transfers) and not run.failed
    if not is_done:
        _add_unfinished(tiling, run, results, plan, num_placed)
    segments = split_at_stand_stills(tiling.segments, run.stand_stills, run.signals.fps)
    return [*segments, *way_home(run, tiling.end)] if is_done else segments


def _add_attempt(
    tiling: _Tiling, run: MotionRun, attempt: Attempt, outcome: AttemptOutcome, plan: TransferPlan, transfer: int
) -> None:
    """Add the steps of an attempt at the object number `transfer` of the plan."""
    steps = plan.steps_of(transfer)
    # An arm that failed to reach the object has missed it as well
    if "reach" in steps:
        reached = not (run.failed and outcome == MISSED)
        tiling.add_step(steps["reach"], attempt.closes, completed=reached, left=plan.num_steps)
    if outcome == MISSED:
        tiling.add(*steps["grasp"], attempt.opens, completed=False)
        return
    # Slow hands show when the object leaves its place; of others it is known how long that takes
    lifted = attempt.lifts if "reach" in steps else attempt.closed + round(LIFT_S * run.signals.fps)
    tiling.add_step(steps["grasp"], min(lifted, attempt.opens), left=plan.num_steps)

    # What was lost was lost on its way
    if outcome != PLACED:
        tiling.add(*(steps.get("carry") or steps["place"]), attempt.opens, completed=False)
        return
    if "carry" in steps and run.signals.state is not None:
        over = over_goal(run.signals.state, tiling.end, attempt.opens)
        tiling.add_step(steps["carry"], over, left=plan.num_steps)

    # What nobody lets go is placed when the arm rests
    placed = min(attempt.opened, run.final_rest) if attempt.never_opened else attempt.opened
    tiling.add_step(steps["place"], placed, left="release" in steps)
    if "release" in steps:
        tiling.add_step(steps["release"], attempt.let_go)


def over_goal(state: np.ndarray, start: int, end: int) -> int:
    """Where the arm comes down at the end of its way from frame `start` to `end`; `state` [n, d] is its pose.

    An arm that lifts, carries and lowers leaves the straight line between both ends. It comes down from the last frame
    at which it is nearly as far from that line as it ever is.
    """
    start = min(start, len(state) - 1)
    path = state[start : max(end, start) + 1] - state[start]
    goal = path[-1]
    along = path @ goal / max(float(goal @ goal), 1e-12)
    aside = np.linalg.norm(path - np.outer(along, goal), axis=1)
    return start + int(np.flatnonzero(aside >= OVER_GOAL * aside.max())[-1])


def _add_unfinished(
    tiling: _Tiling, run: MotionRun, results: Sequence[AttemptOutcome], plan: TransferPlan, num_placed: int
) -> None:
    """Add what follows the last attempt of a run that is not done: maybe the way to an object that was not reached."""
    if num_placed < len(plan.transfers):
        first_step = next(iter(plan.steps_of(num_placed).values()))
        if results[-1:] == [DROPPED]:
            # What was lost is to be grasped again, even if the arm does not move any more
            tiling.add(*first_step, max(run.final_rest, tiling.end + 1), completed=False)
        elif run.final_rest - tiling.end >= LAST_REACH_S * run.signals.fps and HELD not in results:
            tiling.add(*first_step, run.final_rest, completed=False)
    tiling.add("Stand still", None, len(run), completed=False, kind=IDLE)
