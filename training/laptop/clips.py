"""What one step of training shows: windows of runs, some of them changed into negatives, drawn by seed."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from training.laptop.layout import Layout
from training.laptop.runs import Run
from training.negatives.config import AS_RECORDED, OF_TEXT, NegativesConfig
from training.negatives.texts import Instructions
from training.negatives.windows import draw_kind, draw_speed, shown_of

WITHOUT_START = 0.15  # of windows: their own oldest picture stands for the run's first
WITHOUT_TASK = 0.15  # of windows of the right task: nothing is said of it, as of a task whose words are all unknown
WITHOUT_CAMERA = 0.3  # of each camera of several, in a window: it shows nothing; one of them always does
WITHOUT_STATE = 0.3  # of windows: the robot's state is not told


@dataclass(frozen=True)
class Clips:
    """numbers: float32 [n, 1 + frames, d], the run's first moment before the window's; NaN where a camera shows
    nothing, or no state is told. tasks: n texts. label: [n, frames], NaN where there is none. kinds: how each was made,
    AS_RECORDED or a kind of negative."""

    numbers: np.ndarray
    tasks: list[str]
    label: np.ndarray
    kinds: list[str]


@dataclass
class ClipSource:
    """Draws clips of `frames` pictures. `counts`: how many of each kind were drawn."""

    runs: Sequence[Run]
    frames: int
    negatives: NegativesConfig
    seed: int
    layout: Layout | None = None
    counts: Counter[str] = field(default_factory=Counter)

    def __post_init__(self) -> None:
        self._rng = np.random.default_rng(self.seed)
        # Apart from it: the same windows are drawn, whatever is left out of them
        self._missing = np.random.default_rng([self.seed, 1])
        self._before: tuple[Run, np.ndarray] | None = None  # of the last clip, if under its own instruction
        self._instructions = Instructions([run.task for run in self.runs])

    def draw(self, count: int) -> Clips:
        drawn = [self._clip() for _ in range(count)]
        numbers, tasks, label, kinds = zip(*drawn, strict=True)
        self.counts.update(kinds)
        return Clips(np.stack(numbers).astype(np.float32), list(tasks), np.stack(label), list(kinds))

    def _clip(self) -> tuple[np.ndarray, str, np.ndarray, str]:
        rng = self._rng
        run = self.runs[int(rng.integers(len(self.runs)))]
        kind = draw_kind(self.negatives, rng)
        again = self._before if kind == "contrast" else None
        if again is not None:
            run = again[0]
        kind, task = self._told(kind if again or kind != "contrast" else AS_RECORDED, run)
        if again is not None:
            places = again[1]
        else:
            now = int(rng.choice(run.frames))
            places = self._places(run, now, kind)[shown_of(kind, self.frames, rng)]
        self._before = None if kind in OF_TEXT else (run, places)
        label = run.label[places]
        if kind in OF_TEXT:
            label = np.zeros_like(label)
        elif rng.random() < WITHOUT_TASK:
            task = ""
        start = places[0] if rng.random() < WITHOUT_START else 0
        view = int(rng.integers(len(run.numbers)))
        return self._with_gaps(run.moments(view, [start, *places])), task, label, kind

    def _with_gaps(self, moments: np.ndarray) -> np.ndarray:
        """Moments [k, d] without a camera, or without the robot's state, as chance has it."""
        layout, rng = self.layout, self._missing
        if layout is None or layout.width == layout.picture:
            return moments
        moments = moments.astype(np.float32)
        shows = [bool(~np.isnan(part[:, 0]).all()) for part in _by_camera(moments, layout)]
        gone = (rng.random(layout.cameras) < WITHOUT_CAMERA) & shows
        if layout.cameras > 1 and gone.sum() < sum(shows):
            for part, is_gone in zip(_by_camera(moments, layout), gone, strict=True):
                part[:] = np.where(is_gone, np.nan, part)
        if layout.states and rng.random() < WITHOUT_STATE:
            moments[:, layout.pictures :] = np.nan
        return moments

    def _told(self, kind: str, run: Run) -> tuple[str, str]:
        """The kind, and the task that is told; where no instruction differs from the run's, as it was recorded."""
        if kind not in OF_TEXT:
            return kind, run.task
        task = self._instructions.wrong(kind, run.task, self._rng)
        return (kind, task) if task else (AS_RECORDED, run.task)

    def _places(self, run: Run, now: int, kind: str) -> np.ndarray:
        """Which of a run's pictures the window up to a frame shows; as annotate.samples.procvqa.window has it, each
        time's nearest picture."""
        step = run.step * (draw_speed(self._rng) if kind == "other_speed" else 1)
        return window_places(run.frames, now, step, self.frames)


def _by_camera(moments: np.ndarray, layout: Layout) -> list[np.ndarray]:
    """The parts [k, picture] of moments [k, d]; changing one changes the moments."""
    return np.split(moments[:, : layout.pictures], layout.cameras, axis=1)


def window_places(frames: np.ndarray, now: int, step: float, count: int) -> np.ndarray:
    """Which of a run's pictures, of these frames [k], a window of `count` up to frame `now` shows; `step`: frames
    between two, fewer where the run began too late for that."""
    step = min(step, now / max(1, count - 1))
    wanted = now - step * np.arange(count)[::-1]
    return np.abs(frames[None] - wanted[:, None]).argmin(1)
