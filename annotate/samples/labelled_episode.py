"""What samples are made of: an episode with its label, its moments, and a sample's row.

Moments that are asked about are drawn so that what is rare in robot data is not rare in samples.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np

from core.domain.label import IDLE, STEP, Episode, Label, Segment, completed_steps
from core.values import IMAGE_MARK

STATES = ("ongoing", "finished", "failed", "regressed", "stalled")
ONGOING, FINISHED, FAILED, REGRESSED, STALLED = range(len(STATES))
# In the order in which they get their share of a quota
RARE_STATES = (
    FINISHED,
    FAILED,
    REGRESSED,
    STALLED,
)
# Who takes what is left of a quota, the commonest first
FILL_ORDER = (
    ONGOING,
    STALLED,
    FAILED,
    FINISHED,
    REGRESSED,
)
LOOK_BACK_S = 1.0
REGRESSION = 0.02  # of progress, over LOOK_BACK_S
STANDSTILL = 0.005  # gain of progress over LOOK_BACK_S below which a run stalls
SHORTEST_S = 0.3  # a state that lasts less in all is not looked for
# Moments of a quota per second of a run: the same at every frame rate from there on
MOST_PER_S = 5.0
ROUNDING = 1e-9  # keeps a product that should be whole from being rounded down


def frame_states(progress: np.ndarray, segments: Sequence[Segment], fps: float) -> np.ndarray:
    """What each frame shows, as an index of STATES, int8 [num_frames].

    Finished: progress is 1. Regressed: less than a second before. Failed: in an attempt that came
    to nothing, or after the last attempt of a run that ends unfinished. Stalled: idle, or no gain
    within a second.
    """
    frames = np.arange(len(progress))
    look_back = round(LOOK_BACK_S * fps)
    earlier = np.maximum(frames - max(1, look_back), 0)
    gain = progress - progress[earlier]

    # Each rule overrules the ones before it. Frames of the first second have too little past to be called stalled.
    state = np.full(len(progress), ONGOING, np.int8)
    has_full_past = frames >= look_back
    state[has_full_past & (gain < STANDSTILL)] = STALLED
    for segment in segments:
        span = slice(segment.start_frame, segment.end_frame)
        if segment.kind == IDLE:
            state[span] = STALLED
        if segment.kind == STEP and not segment.completed:
            state[span] = FAILED
    if progress[-1] < 1:
        # What follows the last attempt of an unfinished run is part of its failure
        end_of_last_attempt = max((s.end_frame for s in segments if s.kind == STEP), default=0)
        state[end_of_last_attempt:] = FAILED
    state[gain < -REGRESSION] = REGRESSED
    state[progress >= 1] = FINISHED
    return state


def _counts_by_state(
    available: Sequence[int], quota: int, rare_quota: int, fewest_frames: float
) -> list[int]:
    """How many moments each state gets; `available`: how many frames each has."""
    counts = [0] * len(STATES)
    remaining = quota
    # First each rare state that lasts long enough gets its share ...
    for s in RARE_STATES:
        if available[s] >= fewest_frames and remaining:
            counts[s] = min(available[s], remaining, rare_quota)
            remaining -= counts[s]
    # ... then what is left goes to ongoing work, and to the others where a run has too little of it
    for s in FILL_ORDER:
        extra = min(remaining, available[s] - counts[s])
        counts[s] += extra
        remaining -= extra
    return counts


@dataclass(frozen=True)
class LabelledEpisode:
    """An episode that samples are drawn of, with its label, which has progress.

    `picture_sizes`: of each camera the (width, height) of its pictures in a shard; `reasons`: the
    annotator's words at some frames; `unlike_cameras`: of each camera, those that show something
    else.
    """

    episode: Episode
    label: Label
    picture_sizes: Mapping[str, tuple[int, int]]
    reasons: Mapping[int, str] = field(default_factory=dict)
    unlike_cameras: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    @property
    def camera(self) -> str:
        return self.episode.cameras[0]

    @property
    def same_as(self) -> str | None:
        """The text by which its task is compared with those of other runs."""
        return self.episode.same_as or self.label.task

    @property
    def attempts(self) -> list[Segment]:
        return [s for s in self.label.segments if s.kind == STEP]

    @cached_property
    def state(self) -> np.ndarray:
        """Indices of STATES, int8 [num_frames]."""
        return frame_states(self.label.progress, self.label.segments, self.episode.fps)

    def draw_moments(
        self, rng: np.random.Generator, quota: int, rare_share: float, *, ends: bool = False
    ) -> list[int]:
        """Distinct frames to ask about, in order, as many as the quota says wherever the run has so many.

        Each rare state that the run has gets `rare_share` of them (one at least), ongoing work the
        rest; the moments of a state are spread over its frames, one drawn from each of equal parts.
        `ends`: the first and the last frame are in.

        Example: of 100 frames at 10 fps, the last 10 of them finished, a quota of 8 with a rare
        share of 1/8 draws 7 of the ongoing frames, one from each seventh of them, and 1 finished
        frame.
        """
        fps = self.episode.fps
        num_frames = len(self.state)
        # A short run gives few moments: more would be nearly the same pictures again
        quota = min(quota, num_frames, max(1, int(num_frames / fps * MOST_PER_S + ROUNDING)))
        if quota <= 0:
            return []
        fixed = [0, num_frames - 1][:quota] if ends and num_frames > 1 else []
        is_free = np.ones(num_frames, bool)
        is_free[fixed] = False
        frames_by_state = [np.flatnonzero(is_free & (self.state == s)) for s in range(len(STATES))]
        counts = _counts_by_state(
            [len(frames) for frames in frames_by_state],
            quota - len(fixed),
            rare_quota=max(1, round(quota * rare_share)),
            fewest_frames=SHORTEST_S * fps,
        )
        chosen = list(fixed)
        for frames, count in zip(frames_by_state, counts, strict=True):
            # Equal parts of the state's frames, one draw in each: spread out, and still by chance
            part_starts = np.arange(count + 1) * len(frames) // max(1, count)
            within_part = (rng.random(count) * np.diff(part_starts)).astype(int)
            chosen += frames[part_starts[:-1] + within_part].tolist()
        return sorted(chosen)

    @cached_property
    def steps(self) -> tuple[str, ...]:
        """A name for each planned step: the plan's, else that of its first attempt."""
        if self.label.plan:
            return self.label.plan
        first_attempts = {
            s.step: s.name for s in reversed(self.label.segments) if s.step is not None
        }
        num_steps = max(first_attempts, default=-1) + 1
        return tuple(first_attempts.get(k, f"step {k + 1}") for k in range(num_steps))

    @cached_property
    def has_actions(self) -> bool:
        """Is it known which actions the task takes, each by a name that may be used?"""
        return self.label.has_names and bool(self.steps)

    def remaining(self, frame: int) -> list[int]:
        """Planned steps that are not complete after frame `frame`, in order; a step done again is not complete before.

        While progress is below 1 (a run that is known to have failed) the last step at least
        remains. Empty, too, where no step is known.
        """
        complete = completed_steps(self.label.segments, frame)
        planned = list(range(len(self.steps)))
        remaining_steps = [step for step in planned if step not in complete]
        if remaining_steps or self.label.progress[frame] >= 1:
            return remaining_steps
        return planned[-1:]

    def action_at(self, frame: int) -> str:
        """The step under way; the last one, once the task is done."""
        return self.steps[next(iter(self.remaining(frame)), -1)]

    @cached_property
    def step_ends(self) -> list[int] | None:
        """Last frame of each planned step where it was completed for good; None unless all were, in their order."""
        end_of_step = {
            s.step: s.end_frame - 1 for s in self.label.segments if s.kind == STEP and s.completed
        }
        ends = [end_of_step.get(step, -1) for step in range(len(self.steps))]
        in_order = all(previous_end < end for previous_end, end in pairwise([-1, *ends]))
        if ends and in_order and self.label.is_finished:
            return ends
        return None

    def camera_like(self, camera: str) -> str:
        """The episode's camera of that name, else its preferred one."""
        if camera in self.episode.cameras:
            return camera
        return self.camera


def generator(e: LabelledEpisode, family: str, seed: int) -> np.random.Generator:
    """The random numbers of a family of samples of an episode, the same whatever else is drawn, and where."""
    key = f"{seed}\0{e.episode.dataset}\0{e.episode.episode_index}\0{family}"
    return np.random.default_rng(int.from_bytes(hashlib.sha256(key.encode()).digest()[:16], "big"))


PIXELS_PER_TOKEN = 32 * 32  # as the Qwen3-VL models cut pictures
CHARACTERS_PER_TOKEN = 4  # of English, roughly


class SamplePicture(NamedTuple):
    """A picture of a sample: a frame, and how it was edited (a name for the edit, with its seed; empty: not)."""

    episode_index: int
    camera: str
    frame_index: int
    edit: str = ""


def sample_row(
    e: LabelledEpisode,
    family: str,
    variant: str,
    pictures: Sequence[SamplePicture],
    question: str,
    answer: str,
    *,
    other_episodes: Sequence[LabelledEpisode] = (),
    names_steps: bool = False,
    **columns: Any,
) -> dict[str, Any]:
    """A sample of episode `e` as tables and shards hold it; a column that a family does not have may be left out.

    `other_episodes`: further episodes whose pictures it may show. `names_steps`: does it ask for,
    show or answer with the names of steps? Raises ValueError unless the question has one mark for
    each picture.
    """
    marks = question.count(IMAGE_MARK)
    if marks != len(pictures):
        raise ValueError(f"{family} {variant}: {len(pictures)} pictures for {marks} marks")
    # The id is a hash of all that makes the sample what it is: the same draw gets the same id in every build
    identity = [
        e.episode.dataset,
        e.episode.episode_index,
        e.label.label_run,
        family,
        variant,
        pictures,
        question,
        answer,
    ]
    # Pictures of an episode that is not among those given are taken to be as large as the sample's own
    shown_episodes = {p.episode_index for p in pictures}
    sizes = {
        index: o.picture_sizes
        for o in (*other_episodes, e)
        if (index := o.episode.episode_index) in shown_episodes
    }
    own_size = e.picture_sizes[e.camera]
    picture_sizes = (sizes.get(p.episode_index, {}).get(p.camera, own_size) for p in pictures)
    picture_tokens = sum(
        -(-(width * height) // PIXELS_PER_TOKEN) for width, height in picture_sizes
    )
    return {
        "sample_id": hashlib.sha256(json.dumps(identity).encode()).hexdigest()[:16],
        "family": family,
        "variant": variant,
        "dataset": e.episode.dataset,
        "episode_index": e.episode.episode_index,
        "chunk": e.episode.chunk,
        "split": e.episode.split,
        "label_run": e.label.label_run,
        "camera": pictures[-1].camera,
        "frames": [p.frame_index for p in pictures],
        "pictures": [p._asdict() for p in pictures],
        "question": question,
        "answer": answer,
        "names_steps": names_steps,
        "num_tokens": picture_tokens - (-(len(question) + len(answer)) // CHARACTERS_PER_TOKEN),
        **columns,
    }
