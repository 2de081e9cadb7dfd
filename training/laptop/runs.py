"""The runs that a laptop model learns from: what a release's shards show of each episode, as numbers of the encoder."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np

from annotate.embeddings.encoders import Encoder
from annotate.samples.procvqa import ACTIONS, PROGRESS, SEGMENTATION, task_text
from training.data import augment
from training.laptop.config import MAX_PX
from training.laptop.pictures import embed
from training.transform import Item, decode_picture
from warehouse.lake import Lake
from warehouse.lake.sql import open_for_users
from warehouse.releases import Release
from warehouse.shards import Sample, read_samples

FAMILIES = frozenset({SEGMENTATION, ACTIONS, PROGRESS})  # those that show an episode's own pictures in order of time

LABELS = """
SELECT p.dataset, p.episode_index, p.frame_index, p.progress
FROM progress p JOIN active_runs a USING (dataset, episode_index, label_run)
WHERE list_contains(?, p.dataset)
"""


@dataclass(frozen=True)
class Run:
    """An episode's pictures in order of time.

    numbers: float16 [views, k, d], of each picture as it is and varied. frames: int64 [k]. label: float32 [k], NaN
    where the release has none. step: frames between the pictures of a window of the release; shown: how many at most.
    """

    dataset: str
    episode_index: int
    task: str
    numbers: np.ndarray
    frames: np.ndarray
    label: np.ndarray
    step: float
    shown: int


def read_runs(
    lake: Lake, release: Release, shards: Sequence[Path], encoder: Encoder, views: int, seed: int
) -> list[Run]:
    """The runs of some shards with samples of progress, in order. Labels of frames that no sample asks about are those
    of the lake at the release's snapshot. Raises ShardError."""
    datasets = sorted({s.dataset for s in release.shard_list})
    tasks, labels = _tasks(lake, release), _labels(lake, release, datasets)
    runs = []
    for key, samples in _by_episode(shards):
        asked = {s.row["frames"][-1]: float(s.row["progress"]) for s in samples if _has_progress(s)}
        # What no sample of progress was drawn of did not pass the release's gate
        if not asked:
            continue
        pictures = dict(sorted((f, p) for s in samples for f, p in zip(s.row["frames"], s.pictures, strict=True)))
        known = labels.get(key, {}) | asked
        decoded = [decode_picture(p, MAX_PX) for p in pictures.values()]
        rng = np.random.default_rng([seed, key[1]])
        numbers = [embed(encoder, decoded if view == 0 else _varied(decoded, rng)) for view in range(views)]
        runs.append(
            Run(
                *key,
                task=tasks.get(key) or next(s.row["question"] for s in samples if _has_progress(s)),
                numbers=np.stack(numbers).astype(np.float16),
                frames=np.array(list(pictures)),
                label=np.array([known.get(f, np.nan) for f in pictures], np.float32),
                step=_step(samples),
                shown=max(len(s.row["frames"]) for s in samples if _has_progress(s)),
            )
        )
    return runs


def _by_episode(shards: Sequence[Path]) -> Iterator[tuple[tuple[str, int], list[Sample]]]:
    """An episode's samples lie in one entry, so they come together; of one camera, that of its samples of progress."""
    key, found = None, list[Sample]()
    for sample in read_samples(shards, FAMILIES):
        now = sample.row["dataset"], sample.row["episode_index"]
        if key is not None and now != key:
            yield key, found
            found = []
        key = now
        found.append(sample)
    if key is not None:
        yield key, found


def _has_progress(sample: Sample) -> bool:
    return sample.row["family"] == PROGRESS and sample.row["progress"] is not None


def _step(samples: Sequence[Sample]) -> float:
    """Frames between two pictures of a window; 1 where windows show one picture."""
    between = [b - a for s in samples if _has_progress(s) for a, b in pairwise(s.row["frames"])]
    return float(max(between, default=1))


def _tasks(lake: Lake, release: Release) -> dict[tuple[str, int], str]:
    con = open_for_users(lake.workspace, release.snapshot)
    rows = con.execute("SELECT dataset, episode_index, task FROM episodes WHERE status = 'ok'").fetchall()
    return {(dataset, episode): task_text(task) for dataset, episode, task in rows}


def _labels(lake: Lake, release: Release, datasets: Sequence[str]) -> Mapping[tuple[str, int], dict[int, float]]:
    con = open_for_users(lake.workspace, release.snapshot)
    found: dict[tuple[str, int], dict[int, float]] = {}
    for dataset, episode, frame, progress in con.execute(LABELS, [list(datasets)]).fetchall():
        found.setdefault((dataset, episode), {})[frame] = progress
    return found


def _varied(pictures: Sequence[np.ndarray], rng: np.random.Generator) -> list[np.ndarray]:
    """One change of light and place for all pictures of a run, so that its motion stays what it was."""
    return list(augment(Item("", tuple(pictures)), rng).pictures)
