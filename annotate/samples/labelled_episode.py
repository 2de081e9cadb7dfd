"""What samples are made of, and the row of a sample."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import NamedTuple

import numpy as np

from annotate.samples.moments import states
from annotate.samples.wording import IMAGE_MARK
from annotate.segments import STEP, Segment, undo

PIXELS_PER_TOKEN = 32 * 32
CHARACTERS_PER_TOKEN = 4


class Picture(NamedTuple):
    """A picture of a sample: a frame, and how it was edited (a name for the edit, with its seed; empty: not)."""

    episode_index: int
    camera: str
    frame_index: int
    edit: str = ""


@dataclass(frozen=True)
class LabelledEpisode:
    """An episode with its label; `progress` is float32 [num_frames].

    `cameras` by preference, with the (width, height) of their pictures in a shard; `plan` names every planned step;
    `reasons` has the annotator's words at some frames.
    """

    dataset: str
    episode_index: int
    chunk: int
    split: str
    label_run: str
    cameras: Mapping[str, tuple[int, int]]
    fps: float
    task: str | None
    segments: Sequence[Segment]
    progress: np.ndarray
    plan: Sequence[str] = ()
    reasons: Mapping[int, str] = field(default_factory=dict)

    @property
    def camera(self) -> str:
        return next(iter(self.cameras))

    @property
    def finished(self) -> bool:
        return bool(self.progress[-1] >= 1)

    @cached_property
    def state(self) -> np.ndarray:
        """Indices of annotate.samples.moments.STATES, int8 [num_frames]."""
        return states(self.progress, self.segments, self.fps)

    @cached_property
    def steps(self) -> tuple[str, ...]:
        """A name for each planned step: the plan's, else that of its first attempt."""
        if self.plan:
            return tuple(self.plan)
        attempts = {s.step: s.name for s in reversed(self.segments) if s.step is not None}
        return tuple(attempts.get(k, f"step {k + 1}") for k in range(max(attempts, default=-1) + 1))

    def remaining(self, now: int) -> list[int]:
        """Planned steps that are not complete after frame `now`, in order; a step done again is not complete before.

        While progress is below 1 (a run that is known to have failed) the last step at least remains. Empty, too, where
        no step is known.
        """
        done: set[int] = set()
        for s in self.segments:
            if s.start_frame > now:
                break
            if s.step is not None:
                done = undo(done, s.step)
                if s.completed and s.end_frame - 1 <= now:
                    done = done | {s.step}
        left = [k for k in range(len(self.steps)) if k not in done]
        return left if left or self.progress[now] >= 1 else list(range(len(self.steps)))[-1:]

    def step_ends(self) -> list[int] | None:
        """Last frame of each planned step where it was completed for good; None unless all were, in their order."""
        ends = {s.step: s.end_frame - 1 for s in self.segments if s.kind == STEP and s.completed}
        found = [ends.get(k, -1) for k in range(len(self.steps))]
        in_order = all(a < b for a, b in zip([-1, *found], found, strict=False))
        return found if found and in_order and self.finished else None


def generator(e: LabelledEpisode, family: str, seed: int) -> np.random.Generator:
    key = f"{seed}\0{e.dataset}\0{e.episode_index}\0{family}"
    return np.random.default_rng(int.from_bytes(hashlib.sha256(key.encode()).digest()[:16], "big"))


def plain(text: str) -> str:
    """A text from outside in a question: <image> marks stand for pictures and nothing else."""
    return text.replace(IMAGE_MARK, "image")


def row(
    e: LabelledEpisode,
    family: str,
    variant: str,
    pictures: Sequence[Picture],
    question: str,
    answer: str,
    sizes: Mapping[tuple[int, str], tuple[int, int]] | None = None,
    **columns: object,
) -> dict:
    """A row of the table samples; `sizes` of pictures of other episodes."""
    if question.count(IMAGE_MARK) != len(pictures):
        raise ValueError(f"{family} {variant}: {len(pictures)} pictures for {question.count(IMAGE_MARK)} marks")
    key = [e.dataset, e.episode_index, e.label_run, family, variant, pictures, question, answer]
    pixels = [
        width * height
        for p in pictures
        for width, height in [
            e.cameras[p.camera] if p.episode_index == e.episode_index else (sizes or {})[p.episode_index, p.camera]
        ]
    ]
    return {
        "sample_id": hashlib.sha256(json.dumps(key).encode()).hexdigest()[:16],
        "family": family,
        "variant": variant,
        "dataset": e.dataset,
        "episode_index": e.episode_index,
        "chunk": e.chunk,
        "split": e.split,
        "label_run": e.label_run,
        "camera": pictures[-1].camera,
        "frames": [p.frame_index for p in pictures],
        "pictures": [p._asdict() for p in pictures],
        "question": question,
        "answer": answer,
        "num_tokens": sum(-(-n // PIXELS_PER_TOKEN) for n in pixels)
        + -(-(len(question) + len(answer)) // CHARACTERS_PER_TOKEN),
    } | columns
