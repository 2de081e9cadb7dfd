"""A run as it comes in, frame by frame: which frames are kept, and what is to be scored.

A video, an episode of a data set and a live session are all streams. What a model made of a picture is kept with it, so
that windows that overlap share it; how many pictures are kept does not grow with the run.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, lru_cache
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal, Self

import numpy as np

from annotate.config import SamplesConfig
from annotate.samples.procvqa import window
from core.errors import UserError
from training.folder import read_card

# Of "state" and "action" the row [d], as a dataset has it
Robot = Mapping[str, Sequence[float] | np.ndarray]
# all: means over the cameras. best: the camera whose verdict is surest. wrist: progress as the other cameras see it,
# and done only as far as the wrist cameras say so, too: contact is seen from near, the scene from afar
ViewRule = Literal["all", "best", "wrist"]
PUBLISHED_FRAMES = 8  # of the published inference; its training showed up to 17


class RewardError(UserError):
    """A reward that cannot be given: what, and what to do."""


class CutOffError(RewardError):
    """A video that ends before its header says."""


@dataclass(frozen=True)
class Window:
    """`frames` pictures, `step_s` seconds apart; None: consecutive frames, as the published recipe has them."""

    frames: int
    step_s: float | None

    def __post_init__(self) -> None:
        if self.frames < 1 or (self.step_s is not None and not 0 < self.step_s < float("inf")):
            raise RewardError(
                f"a window has at least one frame, some time apart, not {self.frames} x {self.step_s} s"
            )

    @classmethod
    def of_card(cls, card: Mapping[str, Any]) -> Self | None:
        """What a model was trained on; None where its card does not say."""
        card_window = card.get("window")
        if not card_window:
            return None
        if card_window["profile"] == "procvlm":
            return cls(PUBLISHED_FRAMES, None)
        return cls(card_window["window_frames"], card_window["window_step_s"])

    def of(self, frame_index: int, fps: float) -> list[int]:
        """Frames of a stream at `fps` that stand for frame `frame_index`, in order, none of them twice. At the start
        of a run
        they lie closer together (consecutive ones: are fewer), as in training; no frame is repeated."""
        if self.step_s is None:
            return list(range(max(0, frame_index - self.frames + 1), frame_index + 1))
        return window(frame_index, fps, self._config)

    @cached_property
    def _config(self) -> SamplesConfig:
        return SamplesConfig(
            window_frames=self.frames, window_step_s=self.step_s or SamplesConfig().window_step_s
        )

    def reach(self, fps: float) -> int:
        """How many frames before it a window goes back at most."""
        step = 1.0 if self.step_s is None else self.step_s * fps
        return round((self.frames - 1) * step)

    def check(self, fps: float) -> None:
        """Raises RewardError where a stream is too slow: two pictures of a window would be the same
        frame."""
        if self.frames > 1 and self.step_s is not None and self.step_s * fps < 1 - 1e-6:
            raise RewardError(
                f"the model was trained on pictures {self.step_s:g} s apart, and {fps:g} frames a second are too few "
                f"for that: give at least {1 / self.step_s:g}"
            )

    def __str__(self) -> str:
        spacing = "consecutive" if self.step_s is None else f"{self.step_s:g} s apart"
        if self.frames > 1:
            return f"{self.frames} pictures, {spacing}"
        return "1 picture"


LAST_PICTURE = Window(1, None)


def trained_families(card: Mapping[str, Any]) -> frozenset[str]:
    """The families of samples that a model was trained on, by its card; where it names none, progress by windows."""
    data = (card.get("recipe") or {}).get("data") or {}
    return frozenset(data.get("families") or ("procvqa_c",))


def trained_window(folder: Path, requested: Window | None) -> Window | None:
    """The window of a checkpoint; None where it was trained on ProgressLM's questions alone. Raises RewardError where
    it is another one than asked for, or unknown."""
    card = read_card(folder)
    trained = Window.of_card(card)
    if "procvqa_c" not in trained_families(card):
        return None
    if trained and requested and trained != requested:
        raise RewardError(
            f"{folder.name} was trained on windows of {trained}, not of {requested}: leave the window out"
        )
    window = trained or requested
    if window is None:
        raise RewardError(
            f"{folder.name} does not say on which window it was trained: give --window-frames, and --window-step "
            "unless they are consecutive"
        )
    return window


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


def picture_cache() -> Callable[[np.ndarray], StreamPicture]:
    """Pictures by their pixels: of equal ones the same, so that what a scorer makes of one is made once. Those that
    were asked for longest ago make room."""

    @lru_cache(KEPT_PICTURES)
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
    """Frames of a run at a constant rate of `fps`, of one camera or of several at once, counted from 0.

    `steps`: the task's in words, for models that compare with a demonstration. `score_fps`: frames a second that are
    scored, evenly; None: each. `num_frames`, where it is known: the last one is scored, too. `duration_s` and
    `goal` (a picture by camera) are for the baselines, which know the end. `rule`: how cameras are judged together.
    `state`: what a scorer that follows a run keeps of it. `read`: what it reads of the robot; may raise RewardError.
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
            raise RewardError(
                f"cameras need names, each its own, not {', '.join(self.cameras) or 'none'}"
            )
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
        frame_index = self.appended
        if frame_index == 0 or self.score_fps is None:
            return True
        last = frame_index + self.window.reach(self.fps)
        return any(
            self.is_due(j) and frame_index in self.window.of(j, self.fps)
            for j in range(frame_index, last + 1)
        )

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
        frame_index = self.appended
        if score is not None and self.score_fps is not None:
            raise ValueError("score_fps says already which frames are scored")
        # What may raise comes first: on an error the stream has to be as it was.
        read = self.read(robot)
        self._keep(frame_index, pictures)
        self.appended = frame_index + 1
        is_scored = self.is_due(frame_index) if score is None else score
        if is_scored:
            moment = replace(self._moment(frame_index, timestamp_s), robot=read)
        else:
            moment = None
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

    def _keep(self, frame_index: int, pictures: Mapping[str, np.ndarray] | None) -> None:
        if pictures is None:
            if self.is_wanted:
                raise RewardError(f"frame {frame_index} is needed for a window, and was not given")
            return
        self._check(pictures)
        self._kept[frame_index] = {c: StreamPicture(self.fit(pictures[c])) for c in self.cameras}
        if frame_index == 0:
            self.first = self._kept[0]

    def _moment(self, frame_index: int, timestamp_s: float | None) -> Moment:
        """Frame `frame_index` with the pictures of its window."""
        frames = self.window.of(frame_index, self.fps)
        views = {c: tuple(self._kept[f][c] for f in frames) for c in self.cameras}
        time_s = frame_index / self.fps if timestamp_s is None else timestamp_s
        return Moment(self, frame_index, time_s, tuple(frames), views)

    def _check(self, pictures: Mapping[str, np.ndarray]) -> None:
        if set(pictures) != set(self.cameras):
            raise RewardError(
                f"pictures of {', '.join(pictures) or 'no camera'}, not of {', '.join(self.cameras)}"
            )
        for name, rgb in pictures.items():
            if rgb.dtype != np.uint8 or rgb.ndim != 3 or rgb.shape[2] != 3 or not rgb.size:
                raise RewardError(
                    f"a picture is uint8 [height, width, 3] RGB, not {rgb.dtype} {list(rgb.shape)}: {name}"
                )
