"""What one step of training shows: windows of episodes, some of them changed into negatives, drawn by seed."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from training.laptop.episodes import ShownEpisode
from training.negatives.config import AS_RECORDED, OTHER_TASK, NegativesConfig
from training.negatives.windows import Instructions, draw_kind, draw_speed, shown_of, window_places

WITHOUT_START = 0.15  # of windows: their own oldest picture stands for the episode's first
WITHOUT_TASK = 0.15  # of windows of the right task: nothing is said of it, as of a task whose words are all unknown


@dataclass
class ClipSource:
    """Draws clips of `frames` pictures, up to moments whose pictures are all there: of a long run few frames lie in the
    shards, and nearest ones in their place would tell how long it lasts. `counts`: how many of each kind."""

    episodes: Sequence[ShownEpisode]
    frames: int
    negatives: NegativesConfig
    seed: int
    counts: Counter[str] = field(default_factory=Counter)

    def __post_init__(self) -> None:
        self._rng = np.random.default_rng(self.seed)
        self._moments = [
            [f for f in e.frames if window_places(e.frames, f, e.step, self.frames)[1]] or e.frames
            for e in self.episodes
        ]
        self._instructions = Instructions([e.task for e in self.episodes])

    def draw(self, count: int) -> tuple[np.ndarray, list[str], np.ndarray]:
        """Clips: numbers float32 [n, 1 + frames, d], the episode's first picture before the window's; n texts of tasks;
        labels [n, frames], NaN where there is none."""
        drawn = [self._clip() for _ in range(count)]
        numbers, tasks, label, kinds = zip(*drawn, strict=True)
        self.counts.update(kinds)
        return np.stack(numbers).astype(np.float32), list(tasks), np.stack(label)

    def _clip(self) -> tuple[np.ndarray, str, np.ndarray, str]:
        rng = self._rng
        number = int(rng.integers(len(self.episodes)))
        e = self.episodes[number]
        kind, task = self._told(draw_kind(self.negatives, rng), e.task)
        now = int(rng.choice(self._moments[number]))
        step = e.step * (draw_speed(rng) if kind == "other_speed" else 1)
        places = window_places(e.frames, now, step, self.frames)[0][shown_of(kind, self.frames, rng)]
        label = e.label[places]
        if kind == OTHER_TASK:
            label = np.zeros_like(label)
        elif rng.random() < WITHOUT_TASK:
            task = ""
        start = places[0] if rng.random() < WITHOUT_START else 0
        view = int(rng.integers(len(e.numbers)))
        return e.numbers[view][[start, *places]], task, label, kind

    def _told(self, kind: str, task: str) -> tuple[str, str]:
        """The kind, and the task that is told; where no instruction differs from the episode's, as it was recorded."""
        if kind != OTHER_TASK:
            return kind, task
        wrong = self._instructions.other(task, self._rng)
        return (kind, wrong) if wrong else (AS_RECORDED, task)
