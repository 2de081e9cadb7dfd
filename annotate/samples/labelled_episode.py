"""What samples are made of: an episode with its label."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import pairwise

import numpy as np

from annotate.samples.moments import draw_moments, frame_states
from annotate.segments import STEP, Segment, completed_steps


@dataclass(frozen=True)
class LabelledEpisode:
    """An episode with its label; `progress` is float32 [num_frames].

    `cameras` by preference, with the (width, height) of their pictures in a shard; `plan` names every planned step;
    `reasons` has the annotator's words at some frames; `unlike_cameras`, of each camera, those that show something
    else. `confidence` of the label, 0..1; None: it has none. `named`: has every planned step a name that may be used?
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
    unlike_cameras: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    confidence: float | None = None
    named: bool = True

    @property
    def camera(self) -> str:
        return next(iter(self.cameras))

    @property
    def attempts(self) -> list[Segment]:
        return [s for s in self.segments if s.kind == STEP]

    @property
    def finished(self) -> bool:
        return bool(self.progress[-1] >= 1)

    @cached_property
    def state(self) -> np.ndarray:
        """Indices of annotate.samples.moments.STATES, int8 [num_frames]."""
        return frame_states(self.progress, self.segments, self.fps)

    def draw_moments(self, rng: np.random.Generator, quota: int, rare_share: float, *, ends: bool = False) -> list[int]:
        """Frames to ask about."""
        return draw_moments(rng, self.state, self.fps, quota, rare_share, ends=ends)

    @cached_property
    def steps(self) -> tuple[str, ...]:
        """A name for each planned step: the plan's, else that of its first attempt."""
        if self.plan:
            return tuple(self.plan)
        first_attempts = {s.step: s.name for s in reversed(self.segments) if s.step is not None}
        num_steps = max(first_attempts, default=-1) + 1
        return tuple(first_attempts.get(k, f"step {k + 1}") for k in range(num_steps))

    @property
    def has_actions(self) -> bool:
        """Is it known which actions the task takes, each by a name that may be used?"""
        return self.named and bool(self.steps)

    def remaining(self, now: int) -> list[int]:
        """Planned steps that are not complete after frame `now`, in order; a step done again is not complete before.

        While progress is below 1 (a run that is known to have failed) the last step at least remains. Empty, too, where
        no step is known.
        """
        complete = completed_steps(self.segments, now)
        planned = list(range(len(self.steps)))
        left = [step for step in planned if step not in complete]
        return left if left or self.progress[now] >= 1 else planned[-1:]

    def action_at(self, now: int) -> str:
        """The step under way; the last one, once the task is done."""
        left = self.remaining(now)
        return self.steps[left[0] if left else -1]

    @cached_property
    def step_ends(self) -> list[int] | None:
        """Last frame of each planned step where it was completed for good; None unless all were, in their order."""
        end_of_step = {s.step: s.end_frame - 1 for s in self.segments if s.kind == STEP and s.completed}
        ends = [end_of_step.get(step, -1) for step in range(len(self.steps))]
        in_order = all(before < after for before, after in pairwise([-1, *ends]))
        return ends if ends and in_order and self.finished else None

    def camera_like(self, camera: str) -> str:
        """The episode's camera of that name, else its preferred one."""
        return camera if camera in self.cameras else self.camera


def generator(e: LabelledEpisode, family: str, seed: int) -> np.random.Generator:
    """The random numbers of a family of samples of an episode, the same whatever else is drawn, and where."""
    key = f"{seed}\0{e.dataset}\0{e.episode_index}\0{family}"
    return np.random.default_rng(int.from_bytes(hashlib.sha256(key.encode()).digest()[:16], "big"))
