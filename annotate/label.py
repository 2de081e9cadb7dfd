"""The label of one episode, in the one form that every annotator gives."""

from dataclasses import dataclass

from annotate.segments import Segment
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
    steps_from: str | None = None  # the form of the source's steps that the segments are made of; None: of none


def plain_label(
    segments: list[Segment], num_planned: int, task: str | None, as_far_as: EpisodeFrame | None = None
) -> EpisodeLabel:
    """The label by an annotator that knows the steps and nothing else: it has no doubts and infers no task.

    Steps are named as in their first attempts; a planned step that was never attempted is "Step" with its number.
    """
    name_of_step = {s.step: s.name for s in reversed(segments) if s.step is not None}
    plan = tuple(name_of_step.get(step, f"Step {step + 1}") for step in range(num_planned))
    return EpisodeLabel(
        segments,
        num_planned,
        task,
        task_inferred=False,
        needs_review=False,
        notes=[],
        plan=plan,
        as_far_as=as_far_as,
    )
