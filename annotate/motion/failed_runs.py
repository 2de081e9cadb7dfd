"""How far the failed runs of a task came, decided from three observations that are compared with successful runs.

1. The arm: how far the run came along the reference runs, and whether it diverged from them (`reference_runs`).
2. The first picture: whether the arm ever came near the position where the object lies (`object_position`).
3. The gripper: whether it holds the object in the end (`held_object`).

Example: in a successful run the arm first acts on its object at frame 30. A failed run is like it up to frame 20, where
it diverges. It missed its object and is credited with half of this: it came as far as the successful run at frame 10.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from annotate.motion.gripper_events import closings
from annotate.motion.held_object import holds_object, opening_on_last_close
from annotate.motion.object_position import PositionExample, PositionModel, distances_to_object, learn_positions
from annotate.motion.reference_runs import ReferenceMatch, ReferenceRuns, evenly_chosen, learn_references, match
from annotate.motion.signals import MotionRun

# A run that missed its object is credited with this share of how far it came: its gripper stopped beside the object or
# was drawn back. For each task the failed runs of all others choose 0.4, of 0.3 to 1; from 0.3 to 0.6 the error at the
# end differs by 0.002.
MISSED_CREDIT = 0.5


@dataclass(frozen=True)
class _References:
    """What the successful runs of a task show about where an arm should go."""

    successful: list[int]  # their positions among the runs of the task
    runs: ReferenceRuns | None
    examples: dict[int, PositionExample]  # by the run's position among the runs of the task
    positions: PositionModel | None


def match_failed_runs(runs: Sequence[MotionRun], *, one_object: bool) -> list[ReferenceMatch | None]:
    """For each failed run, how far it came; None for the other runs, and where nothing shows it.

    `one_object`: the task is about one object, so that what a gripper holds is that object.
    """
    references = _learn(runs)
    holds = _holds_object(runs) if one_object else [None] * len(runs)
    matches: list[ReferenceMatch | None] = []
    for run, held in zip(runs, holds, strict=True):
        matches.append(_match_failed(run, runs, references, holds=held) if run.failed else None)
    return matches


def _holds_object(runs: Sequence[MotionRun]) -> list[bool | None]:
    grippers = [gripper for run in runs for gripper in run.signals.grippers if gripper.has_polarity]
    openings = [opening_on_last_close(run.gripper_events, run.signals.grippers) for run in runs]
    return holds_object(openings, [run.signals.success for run in runs], grippers)


def _learn(runs: Sequence[MotionRun]) -> _References:
    successful = [i for i, run in enumerate(runs) if run.signals.success]
    reference_runs = learn_references([runs[i].signals.state for i in successful])
    examples = {}
    for i, run in enumerate(runs):
        picture, state = run.signals.picture, run.signals.state
        if run.contact is not None and picture is not None and state is not None:
            examples[i] = PositionExample(picture, state, run.contact)
    in_order = list(examples.values())
    chosen = [in_order[k] for k in evenly_chosen(len(in_order))] if in_order else []
    return _References(successful, reference_runs, examples, learn_positions(chosen))


def _match_failed(
    run: MotionRun, runs: Sequence[MotionRun], references: _References, *, holds: bool | None
) -> ReferenceMatch | None:
    # 1. The arm
    found = _match_by_arm(run, runs, references, holds=holds is True)

    # 2. The first picture; a run that holds its object has been where it lay
    if found and references.positions and holds is not True:
        example = references.examples.get(found.run)
        if example and run.signals.picture is not None and run.signals.state is not None:
            to_object = distances_to_object(run.signals.picture, run.signals.state, references.positions)
            found = _limit_by_picture(found, to_object, example, references.positions)

    # 3. The gripper
    if holds is False:
        found = _limit_by_empty_gripper(found, run, runs)

    return found and _credit(found, runs[found.run].contact)


def _match_by_arm(
    run: MotionRun, runs: Sequence[MotionRun], references: _References, *, holds: bool
) -> ReferenceMatch | None:
    """How far the arm shows that a run came; one that holds its object came at least to where it is grasped."""
    if references.runs is None:
        return None
    # What holds its object did the right thing, however unlike the references its way there was
    found = match(run.signals.state, references.runs, may_diverge=not holds)
    if found is None:
        return None
    found = replace(found, run=references.successful[found.run])  # counted among all runs of the task
    if holds:
        found = replace(found, frame=max(found.frame, runs[found.run].contact or 0))
    return found


def _limit_by_picture(
    found: ReferenceMatch, to_object: np.ndarray, example: PositionExample, positions: PositionModel
) -> ReferenceMatch:
    """The same match, or an earlier one for a run that never came near the position which its picture predicts.

    That run came as far as its reference was when the reference had as large a share of its way to the object still
    before it as the run had at its end. `to_object` [n]: how far the run was from the predicted position.
    """
    if to_object.min() <= positions.margin:
        return found

    # Up to the reference's contact: shares of its way to the object that lie before it, and the same of the run's end.
    # The floors keep an arm that begins at the object from a division by zero.
    reference_to_object = distances_to_object(example.picture, example.state, positions)[: example.contact + 1]
    reference_left = reference_to_object / max(reference_to_object[0], 1e-9)
    run_left = to_object[-1] / max(to_object[0], 1e-9)
    as_near = reference_left <= run_left
    frame = int(np.argmax(as_near)) if as_near.any() else example.contact

    # In any case before the contact, and no farther than the arm showed
    frame = min(frame, example.contact - 1, found.frame)
    diverged_at = int(np.argmin(to_object)) if found.diverged_at is None else found.diverged_at
    return ReferenceMatch(found.run, frame, diverged_at)


def _limit_by_empty_gripper(
    found: ReferenceMatch | None, run: MotionRun, runs: Sequence[MotionRun]
) -> ReferenceMatch | None:
    """The same match, but at most half of the way to the object: the gripper holds nothing.

    How near to the object the gripper came is not known. A run without a match is matched to the first successful run
    that acts on an object. A run that had not diverged before did so where its gripper closed for the last time.
    """
    closed = closings(run.gripper_events)
    reference = _acting_reference(found, runs)
    if reference is None or not closed:
        return found
    # The last close is where it last tried and got nothing
    last_close = closed[-1].start
    half_way = (runs[reference].contact or 0) // 2
    if found is None:
        return ReferenceMatch(reference, half_way, last_close)
    if found.frame < half_way:
        return found
    diverged_at = last_close if found.diverged_at is None else found.diverged_at
    return replace(found, frame=half_way, diverged_at=diverged_at)


def _acting_reference(found: ReferenceMatch | None, runs: Sequence[MotionRun]) -> int | None:
    """The matched run if it acts on an object; without a match, the first run that does."""
    acting = [i for i, run in enumerate(runs) if run.contact is not None]
    if found is None:
        return acting[0] if acting else None
    return found.run if found.run in acting else None


def _credit(found: ReferenceMatch, contact: int | None) -> ReferenceMatch:
    """The same match, at MISSED_CREDIT of its frame for a run that missed its object.

    A run that diverged after its reference's contact had met the object before.
    """
    met_object = contact is not None and found.frame >= contact
    if found.diverged_at is None or met_object:
        return found
    return replace(found, frame=round(MISSED_CREDIT * found.frame))
