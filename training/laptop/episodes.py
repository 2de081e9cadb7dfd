"""The episodes that a laptop model learns from: what a release's shards show of each, as embeddings; clips of them."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import groupby, pairwise
from typing import Any

import numpy as np

from annotate.embeddings.encoders import Encoder
from annotate.samples.procvqa import ACTIONS, PROGRESS, SEGMENTATION, task_text
from core.logs import TOLD
from training.data import augment
from training.laptop.config import MAX_PX
from training.laptop.model import embed
from training.negatives.windows import Instructions, draw_kind, draw_speed, shown_of, window_places
from training.pictures import Item, decode_picture
from training.recipe import AS_RECORDED, OTHER_TASK, NegativesConfig
from warehouse.lake import Lake
from warehouse.lake.sql import open_for_users
from warehouse.shards import Sample

FAMILIES = frozenset({SEGMENTATION, ACTIONS, PROGRESS})  # those that show an episode's own pictures in order of time
LABELS = """
SELECT p.dataset, p.episode_index, p.frame_index, p.progress
FROM progress p JOIN active_runs a USING (dataset, episode_index, label_run)
WHERE list_contains(?, p.dataset)
"""
TASKS = "SELECT dataset, episode_index, task FROM episodes WHERE status = 'ok' AND list_contains(?, dataset)"


@dataclass(frozen=True)
class ShownEpisode:
    """An episode's pictures in order of time.

    numbers: embeddings, float16 [views, k, d], of each picture as it is and varied. frames: int64 [k]. label: float32
    [k], NaN where the release has none. step: frames between the pictures of a window of the release; shown: how many
    at most.
    """

    dataset: str
    episode_index: int
    task: str
    numbers: np.ndarray
    frames: np.ndarray
    label: np.ndarray
    step: float
    shown: int


def read_episodes(
    lake: Lake,
    snapshot: int,
    samples: Iterable[Sample],
    datasets: Sequence[str],
    encoder: Encoder,
    views: int,
    seed: int,
) -> list[ShownEpisode]:
    """Episodes with samples of progress, in order, each picture seen `views` times; an episode's samples come together.

    Labels of frames that no sample asks about are those of the lake at the snapshot.
    """
    con = open_for_users(lake.workspace, snapshot)
    tasks = {(d, e): task_text(task) for d, e, task in con.execute(TASKS, [datasets]).fetchall()}
    labels: dict[tuple[str, int], dict[int, float]] = {}
    for dataset, episode, frame, progress in con.execute(LABELS, [datasets]).fetchall():
        labels.setdefault((dataset, episode), {})[frame] = progress
    made = []
    for key, group in groupby(samples, lambda s: (s.row["dataset"], s.row["episode_index"])):
        own = list(group)
        TOLD.get()("pictures", len(made), detail=f"of {len(made) + 1} episodes encoded")
        asked = [s.row for s in own if s.row["family"] == PROGRESS and s.row["progress"] is not None]
        # What no sample of progress was drawn of did not pass the release's gate
        if asked:
            known = labels.get(key, {}) | {row["frames"][-1]: float(row["progress"]) for row in asked}
            made.append(_episode(key, own, asked, tasks.get(key), known, encoder, views, seed))
    TOLD.get()("pictures", 1, 1)
    return made


def _episode(
    key: tuple[str, int],
    samples: Sequence[Sample],
    asked: Sequence[Mapping[str, Any]],
    task: str | None,
    labels: Mapping[int, float],
    encoder: Encoder,
    views: int,
    seed: int,
) -> ShownEpisode:
    """One episode of its samples; `asked`: rows of those of progress."""
    pictures = dict(sorted((f, p) for s in samples for f, p in zip(s.row["frames"], s.pictures, strict=True)))
    between = [b - a for row in asked for a, b in pairwise(row["frames"])]
    return ShownEpisode(
        *key,
        task=task or asked[0]["question"],
        numbers=_seen(list(pictures.values()), encoder, views, np.random.default_rng([seed, key[1]])),
        frames=np.array(list(pictures)),
        label=np.array([labels.get(f, np.nan) for f in pictures], np.float32),
        step=float(max(between, default=1)),
        shown=max(len(row["frames"]) for row in asked),
    )


def _seen(jpegs: Sequence[bytes], encoder: Encoder, views: int, rng: np.random.Generator) -> np.ndarray:
    """Pictures through the encoder, as they are, and varied: one change of light and place for all, so that the motion
    stays what it was."""
    decoded = [decode_picture(p, MAX_PX) for p in jpegs]
    shown = [decoded if k == 0 else augment(Item("", tuple(decoded)), rng).pictures for k in range(views)]
    return np.stack([embed(encoder, pictures) for pictures in shown]).astype(np.float16)


# What one step shows: windows of episodes, some of them changed into negatives, drawn by seed

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
