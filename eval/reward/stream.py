"""A run as it comes in, frame by frame: which frames are kept, and what is to be scored.

A video, an episode of a data set and a live session are all streams. What a model made of a picture is kept with it, so
that windows that overlap share it; how many pictures are kept does not grow with the run.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import lru_cache
from types import MappingProxyType
from typing import Any

import numpy as np

from eval.reward.window import RewardError, Robot, ViewRule, Window

KEPT_PICTURES = 512  # of a cache
Fit = Callable[[np.ndarray], np.ndarray]


@dataclass(eq=False)
class StreamPicture:
    """A frame of one camera, uint8 [h, w, 3] RGB as the model is shown it; `seen` is what a scorer keeps of it, in
    `seen_bytes` (on a model's device; 0 where it is small). `cut`: what was made of it beforehand, until it is seen."""

    rgb: np.ndarray
    seen: Any = None
    seen_bytes: int = 0
    cut: Any = None

    @property
    def nbytes(self) -> int:
        return self.rgb.nbytes + self.seen_bytes


def picture_cache(most: int = KEPT_PICTURES) -> Callable[[np.ndarray], StreamPicture]:
    """Pictures by their pixels: of equal ones the same, so that what a scorer makes of one is made once. Those that
    were asked for longest ago make room."""

    @lru_cache(most)
    def kept(pixels: bytes, shape: tuple[int, ...]) -> StreamPicture:
        return StreamPicture(np.frombuffer(pixels, np.uint8).reshape(shape).copy())

    return lambda rgb: kept(rgb.tobytes(), rgb.shape)


@dataclass(frozen=True, eq=False)
class Moment:
    """What is to be scored: frame `frame_index` of a stream, with its window's pictures by camera, in order, and what
    the scorer reads of the robot."""

    stream: "Stream"
    frame_index: int
    timestamp_s: float
    frames: tuple[int, ...]
    views: Mapping[str, tuple[StreamPicture, ...]]
    robot: np.ndarray | None = None


@dataclass(eq=False)
class Stream:
    """Frames of a run at a constant rate of `fps`, of one camera or of several at once.

    `steps`: the task's in words, in order, for models that compare with a demonstration.
    `score_fps`: how many of them a second are to be scored, evenly; None: each. `num_frames`, where it is known: the
    last one is scored, too. `duration_s` and `goal` (a picture by camera) are for the baselines, which know the end.
    `rule`: how what several cameras saw is judged together. `state`: what a scorer that follows a run keeps of it.
    `read`: what the scorer reads of the robot, if anything; may raise RewardError.
    Frames are counted from 0 as they are appended, also those that no window needs.
    """

    task: str
    window: Window
    fps: float
    cameras: tuple[str, ...] = ("camera",)
    steps: tuple[str, ...] = ()
    score_fps: float | None = None
    num_frames: int | None = None
    duration_s: float | None = None
    goal: Mapping[str, np.ndarray] = field(default_factory=dict)
    rule: ViewRule = "all"
    state: Any = None
    fit: Fit = lambda rgb: rgb
    read: Callable[[Robot], np.ndarray | None] = lambda robot: None
    appended: int = 0
    first: dict[str, StreamPicture] = field(default_factory=dict)
    _kept: dict[int, dict[str, StreamPicture]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Raises RewardError."""
        if not self.task.strip():
            raise RewardError("a reward needs a task: say in words what is to be done")
        if not self.cameras or len(set(self.cameras)) < len(self.cameras):
            raise RewardError(f"cameras need names, each its own, not {', '.join(self.cameras) or 'none'}")
        for name, rate in (("fps", self.fps), ("score_fps", self.score_fps)):
            if rate is not None and not 0 < rate < float("inf"):
                raise RewardError(f"{name} is a number above 0, not {rate}")
        self.window.check(self.fps)

    def is_due(self, index: int) -> bool:
        """Is frame `index` to be scored?"""
        if self.score_fps is None or self.score_fps >= self.fps or index + 1 == self.num_frames:
            return True
        return round(round(index * self.score_fps / self.fps) * self.fps / self.score_fps) == index

    @property
    def is_wanted(self) -> bool:
        """Is the frame that comes next in the window of one that is to be scored?"""
        now = self.appended
        if now == 0 or self.score_fps is None:
            return True
        last = now + self.window.reach(self.fps)
        return any(self.is_due(j) and now in self.window.of(j, self.fps) for j in range(now, last + 1))

    def append(
        self,
        pictures: Mapping[str, np.ndarray] | None,
        timestamp_s: float | None = None,
        score: bool | None = None,
        robot: Robot = MappingProxyType({}),
    ) -> Moment | None:
        """Take in the next frame, uint8 [h, w, 3] RGB by camera, or None where it `is_wanted` by no window; `robot`:
        its rows then, of those that are known.

        Returns what is to be scored where the frame is due. Of a stream without `score_fps`, all of which frames are
        kept, `score` may say of each whether it is. Raises RewardError for pictures that are none, of other cameras, or
        missing; the stream is then as it was.
        """
        now = self.appended
        if score is not None and self.score_fps is not None:
            raise ValueError("score_fps says already which frames are scored")
        # What may raise comes first: on an error the stream has to be as it was.
        read = self.read(robot)
        self._keep(now, pictures)
        self.appended = now + 1
        is_scored = self.is_due(now) if score is None else score
        moment = replace(self._moment(now, timestamp_s), robot=read) if is_scored else None
        # Pictures that no later window reaches back to are dropped
        oldest = self.appended - self.window.reach(self.fps)
        self._kept = {index: pictures for index, pictures in self._kept.items() if index >= oldest}
        return moment

    def frames_for_last(self, count: int) -> list[int]:
        """Which of a run's `count` frames the reward of its last one is read from, in order: its window's and the
        first."""
        return sorted({0, *self.window.of(count - 1, self.fps)})

    def last_moment(self, count: int, picture: Callable[[int, str], StreamPicture]) -> Moment:
        """What is to be scored of a run of `count` frames that comes at once, with `picture` (frame, camera) of its
        `frames_for_last`; nothing is kept."""
        self.first = {c: picture(0, c) for c in self.cameras}
        frames = tuple(self.window.of(count - 1, self.fps))
        views = {c: tuple(picture(f, c) for f in frames) for c in self.cameras}
        return Moment(self, count - 1, (count - 1) / self.fps, frames, views)

    def _keep(self, now: int, pictures: Mapping[str, np.ndarray] | None) -> None:
        """Keep the pictures of frame `now` for windows that show it. Raises RewardError."""
        if pictures is None:
            if self.is_wanted:
                raise RewardError(f"frame {now} is needed for a window, and was not given")
            return
        self._check(pictures)
        self._kept[now] = {c: StreamPicture(self.fit(pictures[c])) for c in self.cameras}
        if now == 0:
            self.first = self._kept[0]

    def _moment(self, now: int, timestamp_s: float | None) -> Moment:
        """Frame `now` with the pictures of its window."""
        frames = self.window.of(now, self.fps)
        views = {c: tuple(self._kept[f][c] for f in frames) for c in self.cameras}
        time_s = now / self.fps if timestamp_s is None else timestamp_s
        return Moment(self, now, time_s, tuple(frames), views)

    def _check(self, pictures: Mapping[str, np.ndarray]) -> None:
        if set(pictures) != set(self.cameras):
            raise RewardError(f"pictures of {', '.join(pictures) or 'no camera'}, not of {', '.join(self.cameras)}")
        for name, rgb in pictures.items():
            if rgb.dtype != np.uint8 or rgb.ndim != 3 or rgb.shape[2] != 3 or not rgb.size:
                raise RewardError(
                    f"a picture is uint8 [height, width, 3] RGB, not {rgb.dtype} {list(rgb.shape)}: {name}"
                )
