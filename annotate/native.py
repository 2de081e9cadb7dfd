"""The native annotator: subtask spans that the source itself brings, such as AgiBot's timed action_config."""

from collections.abc import Sequence

from annotate.segments import DONE, IDLE, STEP, Segment
from ingest.episode import NativeStep

CODE_VERSION = "native-1"


class StepsError(ValueError):
    """Spans that cannot be the steps of the episode."""


def annotate(steps: Sequence[NativeStep], num_frames: int, success: bool | None) -> tuple[list[Segment], int]:
    """Segments that tile the episode, and the number of planned steps: one for each span, in order of time.

    Frames before, between and after the spans are idle, but those after the last span of a run that did not fail are
    done. A last span that runs on behind the last frame ends with it, which its note says. Raises StepsError for spans
    that overlap, are empty, or begin outside the episode.
    """
    # `at` is the end of what has been laid so far; gaps between spans are filled
    segments: list[Segment] = []
    at = 0
    for number, step in enumerate(steps):
        _check_span(step, number, at, num_frames)
        if step.start_frame > at:
            segments.append(Segment("Between steps", at, step.start_frame, IDLE, False))
        at = min(step.end_frame, num_frames)
        note = None if at == step.end_frame else f"the source ends it at frame {step.end_frame}"
        failed = success is False and number == len(steps) - 1
        segments.append(Segment(step.name, step.start_frame, at, STEP, not failed, number, None, note))

    # What is left of the run after the last span
    if at < num_frames and success is False:
        segments.append(Segment("Between steps", at, num_frames, IDLE, False))
    elif at < num_frames:
        segments.append(Segment("Done", at, num_frames, DONE, True))
    return segments, len(steps)


def _check_span(step: NativeStep, number: int, at: int, num_frames: int) -> None:
    """Raises StepsError for a span that is empty, begins before frame `at`, or begins behind the last frame."""
    if not at <= step.start_frame < min(step.end_frame, num_frames):
        raise StepsError(
            f"step {number} ({step.name!r}) covers frames {step.start_frame} to {step.end_frame}; the one before "
            f"ends at {at}, the episode at {num_frames}"
        )
