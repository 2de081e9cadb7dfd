"""An episode as the lake knows it, and its label with the segments: the spans of its subtasks, half-open, in frames.

With the rules that they keep, and when what a person states of a run's progress contradicts itself; how progress
follows from it: annotate.progress.stated_progress.
"""

import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from core.domain.label_run import LabelGate
from core.names import is_name, unnamed_step


@dataclass(frozen=True)
class Episode:
    """One episode of a dataset, without its rows, pictures and label.

    num_frames: 0 where nobody has counted them yet. cameras: those that can be used, the preferred
    one first. content_hash: None where it was not decoded yet. same_as: the text that stands for its
    task, where people joined several and a reader asks for it.

    label_run, confidence 0..1, named (has every step of it a name?) and end_by (what its end rests
    on, as the table label_quality has it) are those of the label that counts. label_run is None
    where nobody labelled the episode, or where the label is not sure enough for a reader:
    is_unsure. sure_of_names: is it sure enough of its steps' names?
    """

    dataset: str
    episode_index: int
    chunk: int
    fps: float  # frames per second, as measured, else as stated
    num_frames: int
    task: str | None
    success: bool | None
    split: str | None
    cameras: tuple[str, ...]
    tasks: tuple[str, ...] = ()
    source_id: str = ""
    content_hash: str | None = None
    label_run: str | None = None
    confidence: float | None = None
    named: bool | None = None
    end_by: str | None = None
    is_unsure: bool = False
    sure_of_names: bool = True
    same_as: str | None = None

    @property
    def key(self) -> tuple[str, int]:
        """What it is known by in a corpus."""
        return self.dataset, self.episode_index

    @property
    def row_key(self) -> tuple[str, int, int]:
        """Where its rows lie in the lake's tables: dataset, chunk and episode_index."""
        return self.dataset, self.chunk, self.episode_index

    @property
    def duration_s(self) -> float:
        return self.num_frames / self.fps


STEP = "step"
IDLE = "idle"
DONE = "done"
PACES = ("fast", "slow", "adjust", "mistake")
NO_PROGRESS = np.zeros(0, np.float32)


@dataclass(frozen=True)
class Segment:
    name: str
    start_frame: int
    end_frame: int  # first frame after the segment
    kind: str = STEP
    completed: bool = True
    step: int | None = None  # planned step that this is an attempt at, from 0
    confidence: float | None = None
    notes: str | None = None
    named: bool = True  # by the task's text, whoever gave the steps, or evidence; False: `name` is a placeholder
    pace: str | None = None  # one of PACES, as a person says how fast it went on; None: nobody says
    # That it is this deed, where its annotator had to find that out; None: given
    name_confidence: float | None = None

    def __len__(self) -> int:
        return self.end_frame - self.start_frame


def check_tiling(segments: Sequence[Segment], num_frames: int, num_planned: int) -> None:
    """Raise ValueError unless the segments cover 0..num_frames without gap or overlap and name planned steps.

    `named` has to agree with the name: a placeholder is none.

    Example: in an episode of 10 frames with 1 planned step, a step of frames 0 to 8 and an idle
    segment of frames 8 to 10 tile it; those of frames 0 to 8 and 7 to 10 overlap.
    """
    end = 0
    for s in segments:
        _check_span(s, end, num_frames)
        if s.kind not in (STEP, IDLE, DONE):
            raise ValueError(f"segment {s.name!r} has the unknown kind {s.kind!r}")
        if s.pace not in (None, *PACES):
            raise ValueError(f"segment {s.name!r} has the unknown pace {s.pace!r}")
        # Exactly the steps name a planned step; idle and done segments name none
        fits_kind = (s.kind == STEP) == (s.step is not None)
        is_planned = s.step is None or 0 <= s.step < num_planned
        if not (fits_kind and is_planned):
            raise ValueError(
                f"segment {s.name!r}: step {s.step} is not one of {num_planned} planned ones"
            )
        if s.named != is_name(s.name):
            raise ValueError(
                f"segment {s.name!r} is {'a placeholder, so not' if s.named else 'a name, so'} named"
            )
        end = s.end_frame
    if end != num_frames:
        raise ValueError(f"segments end at frame {end}, the episode has {num_frames}")


def _check_span(s: Segment, expected_start: int, num_frames: int) -> None:
    location = f"segment {s.name!r} covers frames {s.start_frame}-{s.end_frame}"
    if s.end_frame <= s.start_frame:
        raise ValueError(f"{location}: it is empty")
    if s.start_frame != expected_start:
        trouble = "an overlap" if s.start_frame < expected_start else "a gap"
        raise ValueError(f"{location}, expected from {expected_start}: {trouble}")
    if s.end_frame > num_frames:
        raise ValueError(f"{location}, the episode has {num_frames}")


def undo(completed: set[int], step: int) -> set[int]:
    """Steps still complete when an attempt at `step` begins: doing a completed step again undoes it and later ones."""
    if step in completed:
        return {k for k in completed if k < step}
    return completed


def completed_steps(segments: Iterable[Segment], frame: int) -> set[int]:
    """Planned steps that are complete at the end of a frame.

    Example: a step is completed in frames 0 .. 9 and begun anew at frame 30: it is complete at the
    end of 9 .. 29.
    """
    complete: set[int] = set()
    for segment in segments:
        # What begins later neither completes a step yet nor undoes one
        if segment.step is None or segment.start_frame > frame:
            continue
        complete = undo(complete, segment.step)
        is_over = segment.end_frame - 1 <= frame
        if segment.completed and is_over:
            complete = complete | {segment.step}
    return complete


def finished(segments: Iterable[Segment], num_planned: int) -> bool:
    """Is every planned step complete at the end?"""
    return len(completed_steps(segments, sys.maxsize)) == num_planned


@dataclass(frozen=True)
class EpisodeFrame:
    """One frame of another episode of the same data set."""

    episode_index: int
    frame_index: int


@dataclass(frozen=True)
class StatedEnd:
    """A person's statement on a run's end; None: not stated.

    final_progress: 0..1, at the last frame, or right before the catastrophic one.
    catastrophic_frame: the first frame at which nothing is left of what was done.
    """

    final_progress: float | None = None
    catastrophic_frame: int | None = None


NOTHING_STATED = StatedEnd()


@dataclass(frozen=True)
class Label:
    """What somebody says of one episode: segments that tile it (check_tiling), its planned steps, progress and remarks.

    The tables segments, episode_labels and progress hold it; core/tables/labels.py explains each column.

    segments: in order of time. num_planned: steps of the whole task, attempted or not. plan: their
    names, where they were asked for. progress: float32 [num_frames]; empty where it follows from
    the segments, or was not asked for. as_far_as: of a failed run, a successful run at the frame
    where it was as far. end: what a person states of the end. steps_from: the form of the source's
    steps that the segments are made of. label_run: whose it is; empty: nobody has stored it.
    sure_of_names: False: it is too unsure for the names of its steps to be used.
    """

    segments: Sequence[Segment]
    num_planned: int
    plan: tuple[str, ...] = ()
    progress: np.ndarray = field(default_factory=lambda: NO_PROGRESS)
    confidence: float | None = None
    task: str | None = None
    task_inferred: bool = False
    needs_review: bool = False
    notes: Sequence[str] = ()
    as_far_as: EpisodeFrame | None = None
    end: StatedEnd = NOTHING_STATED
    steps_from: str | None = None
    correction_id: str | None = None
    label_run: str = ""
    sure_of_names: bool = True

    @property
    def num_frames(self) -> int:
        return self.segments[-1].end_frame

    @property
    def cuts(self) -> list[int]:
        """Frames at which one segment ends and the next begins."""
        return [segment.start_frame for segment in self.segments[1:]]

    @property
    def has_progress(self) -> bool:
        return bool(len(self.progress))

    @property
    def is_finished(self) -> bool | None:
        """Does its progress say that the whole task was done? None: it has none."""
        return bool(self.progress[-1] >= 1) if self.has_progress else None

    @property
    def named(self) -> bool:
        """Has every attempt at a step a name, and every planned step?"""
        return all(s.named for s in self.segments) and all(is_name(name) for name in self.plan)

    @property
    def has_names(self) -> bool:
        """Has every step a name that may be used?"""
        return self.named and self.sure_of_names

    def with_task(self, task: str | None) -> "Label":
        """The label with its episode's own text; where it has none the annotator's stays."""
        return self if task is None else replace(self, task=task)

    def with_gate(self, gate: LabelGate) -> "Label":
        """The label, with whether it is sure enough of the names of its steps."""
        is_sure = gate.admits_names(self.confidence, is_named=True)
        return replace(self, sure_of_names=is_sure)


def plain_label(
    segments: Sequence[Segment],
    num_planned: int,
    task: str | None,
    last_labelled: EpisodeFrame | None = None,
    step_names: Sequence[str] = (),
) -> Label:
    """The label by an annotator that knows the steps and nothing else: it has no doubts and infers no task.

    `step_names` are those of the planned steps, where the task says them. Without them steps are
    named as in their first attempts, and one that was never attempted is unnamed.
    """
    name_of_step = {s.step: s.name for s in reversed(segments) if s.step is not None}
    plan = tuple(
        step_names or (name_of_step.get(step) or unnamed_step(step) for step in range(num_planned))
    )
    assert len(plan) == num_planned, (step_names, num_planned)
    return Label(segments, num_planned, plan, task=task, as_far_as=last_labelled)


SLOPES: dict[str, float] = dict(zip(PACES, (2.0, 1.0, 0.0, -1.0), strict=True))


def is_stated(segments: Sequence[Segment], end: StatedEnd) -> bool:
    """Does a person say anything of the curve, beyond the segments?"""
    return end != NOTHING_STATED or any(s.pace is not None for s in segments)


def check_stated(segments: Sequence[Segment], num_planned: int, end: StatedEnd) -> None:
    """Raise ValueError where what is stated contradicts itself: a label is 1 exactly when all planned steps are done.

    `segments` tile the episode.
    """
    last_frame = segments[-1].end_frame - 1
    final = end.final_progress
    catastrophic_frame = end.catastrophic_frame
    is_finished = finished(segments, num_planned)
    # Without a final progress the curve ends where the segments alone would end it, which is never below 0
    falls = (
        any(s.pace is not None for s in segments)
        and slopes_of(segments)[1:catastrophic_frame].sum() < 0
    )
    finished_note = "every planned step is completed, so"
    contradictions = (
        (
            final is not None and not 0 <= final <= 1,
            f"final progress {final} is not between 0 and 1",
        ),
        (
            catastrophic_frame is not None and not 0 < catastrophic_frame <= last_frame,
            f"the catastrophic frame {catastrophic_frame} is none of the frames 1 to {last_frame}",
        ),
        (
            catastrophic_frame is not None and is_finished,
            f"{finished_note} nothing was lost: mark the step that failed",
        ),
        (
            final not in (None, 1) and catastrophic_frame is None and is_finished,
            f"{finished_note} the run ends at 1: mark the step that failed",
        ),
        (
            final == 1 and catastrophic_frame is None and not is_finished,
            "the run ends at 1, but a planned step is not completed: mark it as completed, or end below 1",
        ),
        (
            falls,
            "the segments fall by more than they rise: mark a segment as slow or fast, or take falls back",
        ),
    )
    for is_so, contradiction in contradictions:
        if is_so:
            raise ValueError(contradiction)


def slopes_of(segments: Sequence[Segment]) -> np.ndarray:
    """Slope of each frame, float64 [n], in parts of a slow one."""
    of_segments = [SLOPES[s.pace or ("slow" if s.kind == STEP else "adjust")] for s in segments]
    return np.repeat(of_segments, [len(s) for s in segments])
