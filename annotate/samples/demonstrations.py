"""Demonstrations of ProgressLM samples: a task's steps in words, or a run's pictures, with the share done at each."""

from collections.abc import Iterable, Sequence
from typing import Literal, NamedTuple

import numpy as np

from annotate.samples.labelled_episode import LabelledEpisode, SamplePicture

LATE = (0.4, 0.7)  # share done at the first picture of a demonstration of a run's last part


class Demonstration(NamedTuple):
    """Steps, or pictures of their ends (the first is the start), with the share done at each, 0..1."""

    task: str | None
    shares: tuple[float, ...]
    steps: tuple[str, ...] = ()
    pictures: tuple[SamplePicture, ...] = ()

    @property
    def kind(self) -> Literal["text", "visual"]:
        return "visual" if self.pictures else "text"


def in_words(e: LabelledEpisode) -> Demonstration | None:
    """None where the steps are not known by their names."""
    if not e.has_actions or e.task is None:
        return None
    ends = e.step_ends
    shares = [float(e.progress[frame]) for frame in ends] if ends else _shares_of_an_incomplete_run(e)
    return Demonstration(e.task, tuple(shares), e.steps)


def _shares_of_an_incomplete_run(e: LabelledEpisode) -> list[float]:
    """The share done after each planned step. Steps that the run did not complete share what is left of the task alike.

    Example: of four steps the run completed the first, at 0.4; the shares are 0.4, 0.6, 0.8 and 1.
    """
    reached = {s.step: float(e.progress[s.end_frame - 1]) for s in e.segments if s.step is not None and s.completed}
    num_steps = len(e.steps)
    shares: list[float] = []
    share = 0.0
    for step in range(num_steps):
        labelled = reached.get(step, 0.0)
        # A label counts if it rises above the step before and leaves something for the steps after it
        if step < num_steps - 1 and share < labelled < 1:
            share = labelled
        else:
            share += (1 - share) / (num_steps - step)
        shares.append(share)
    return shares


def in_pictures(e: LabelledEpisode, camera: str) -> Demonstration | None:
    """The run's first frame and the end of each step; None where it did not complete every step, in order."""
    ends = e.step_ends
    if ends is None or e.task is None or camera not in e.cameras:
        return None
    return _of_frames(e, camera, [0, *ends] if ends[0] else ends)


def _of_frames(e: LabelledEpisode, camera: str, frames: Iterable[int]) -> Demonstration:
    pictures = tuple(SamplePicture(e.episode_index, camera, frame) for frame in frames)
    return Demonstration(e.task, tuple(float(e.progress[p.frame_index]) for p in pictures), pictures=pictures)


def draw_part(rng: np.random.Generator) -> tuple[bool, float]:
    """(the run's last part, or its first one; the share done where the two meet)."""
    is_last, share = bool(rng.random() < 0.5), float(rng.uniform(*LATE))
    return is_last, share if is_last else 1 - share


def part_in_pictures(e: LabelledEpisode, camera: str, is_last: bool, share: float) -> Demonstration | None:
    """The last or the first part of the run in pictures, parted where `share` is done; None as for the whole run."""
    if e.step_ends is None or e.task is None:
        return None
    parting = int(np.argmax(e.progress >= share))
    start, end = (parting, e.step_ends[-1]) if is_last else (0, parting)
    # One more than the ends of steps, which may be two pictures alone
    inside = (frame for frame in e.step_ends if start < frame < end)
    return _of_frames(e, camera, sorted({start, (start + end) // 2, end, *inside})) if start < end else None


def is_whole_other_run(other: LabelledEpisode, e: LabelledEpisode) -> bool:
    """Is it another run of the same task, which completed every step in order?"""
    return other.task == e.task and other.episode_index != e.episode_index and other.step_ends is not None


def draw_one[T](rng: np.random.Generator, choices: Sequence[T]) -> T:
    return choices[int(rng.integers(len(choices)))]


def draw_camera(rng: np.random.Generator, e: LabelledEpisode) -> str:
    """The preferred camera in half of all draws, else any other one."""
    others = list(e.cameras)[1:]
    return draw_one(rng, others) if others and rng.random() < 0.5 else e.camera
