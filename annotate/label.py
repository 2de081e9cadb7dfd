"""The label of one episode, in the one form that every annotator gives."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from annotate.segments import Segment
from core.names import is_name, unnamed_step
from ingest.episode import EpisodeFrame


@dataclass(frozen=True)
class EpisodeLabel:
    """Segments that tile the episode (annotate.segments.check_tiling), and what holds for all of them."""

    segments: list[Segment]
    num_planned: int  # steps of the whole task, attempted or not
    task: str | None
    task_inferred: bool
    needs_review: bool
    notes: list[str]
    plan: tuple[str, ...]  # names of the planned steps, attempted or not
    as_far_as: EpisodeFrame | None = None  # of a failed run: a successful run, at the frame where it was as far
    confidence: float | None = None  # where an annotator states it of the episode as a whole
    steps_from: str | None = None  # the form of the source's steps that the segments are made of; None: of none
    curve: np.ndarray | None = None  # progress, float32 [n], of an annotator that states it; None: by the segments

    @property
    def named(self) -> bool:
        """Has every planned step a name?"""
        return has_names(self.segments, self.plan)


def has_names(segments: Sequence[Segment], plan: Sequence[str]) -> bool:
    """Has every attempt at a step a name, and every planned step?"""
    return all(s.named for s in segments) and all(is_name(name) for name in plan)


def plain_label(
    segments: list[Segment],
    num_planned: int,
    task: str | None,
    as_far_as: EpisodeFrame | None = None,
    step_names: Sequence[str] = (),
) -> EpisodeLabel:
    """The label by an annotator that knows the steps and nothing else: it has no doubts and infers no task.

    `step_names` are those of the planned steps, where the task says them. Without them steps are named as in their
    first attempts, and one that was never attempted is unnamed.
    """
    name_of_step = {s.step: s.name for s in reversed(segments) if s.step is not None}
    plan = tuple(step_names or (name_of_step.get(step) or unnamed_step(step) for step in range(num_planned)))
    assert len(plan) == num_planned, (step_names, num_planned)
    return EpisodeLabel(segments, num_planned, task, False, False, [], plan, as_far_as)
