"""The runs that a laptop model learns from: what a release's shards show of each episode, as numbers of the encoder."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import duckdb
import numpy as np

from annotate.embeddings.encoders import Encoder
from annotate.embeddings.projection import CELL, WHOLE
from annotate.samples.procvqa import ACTIONS, PROGRESS, SEGMENTATION, task_text
from training.data import augment
from training.laptop.config import MAX_PX, LaptopConfig
from training.laptop.pictures import embed
from training.pictures import Item, decode_picture
from warehouse.lake import Lake
from warehouse.lake.embeddings import episode_embeddings
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
    is_stored: the numbers are the lake's.
    """

    dataset: str
    episode_index: int
    task: str
    numbers: np.ndarray
    frames: np.ndarray
    label: np.ndarray
    step: float
    shown: int
    is_stored: bool = False


def read_runs(
    lake: Lake, release: Release, shards: Sequence[Path], encoder: Encoder, config: LaptopConfig, seed: int
) -> list[Run]:
    """The runs of some shards with samples of progress, in order. Labels of frames that no sample asks about are those
    of the lake at the release's snapshot.

    Where the configuration says so, an episode's numbers are those that the lake holds of the same encoder, as it is
    and at the frames that were looked at; episodes without them are looked at in the shards. Raises ShardError,
    EmbeddingsError.
    """
    datasets = sorted({s.dataset for s in release.shard_list})
    con = open_for_users(lake.workspace, release.snapshot)
    tasks, labels = _tasks(con), _labels(con, datasets)
    runs = []
    for key, samples in _by_episode(shards):
        asked = _asked(samples)
        # What no sample of progress was drawn of did not pass the release's gate
        if not asked:
            continue
        stored = _stored(con, key, samples, encoder, config) if config.numbers_from == "lake" else None
        frames, numbers = stored or _looked_at(samples, encoder, config.views, np.random.default_rng([seed, key[1]]))
        runs.append(
            _run(key, samples, tasks.get(key), labels.get(key, {}) | asked, (frames, numbers), stored is not None)
        )
    return runs


def episode_run(lake: Lake, samples: Sequence[Sample], encoder: Encoder, views: int, seed: int) -> Run:
    """The run of one episode from samples of its progress, as the lake has it now; labels as in read_runs."""
    key = samples[0].row["dataset"], samples[0].row["episode_index"]
    con = open_for_users(lake.workspace, lake.snapshot())
    known = _labels(con, [key[0]]).get(key, {}) | _asked(samples)
    seen = _looked_at(samples, encoder, views, np.random.default_rng([seed, key[1]]))
    return _run(key, samples, _tasks(con).get(key), known, seen)


Seen = tuple[np.ndarray, np.ndarray]  # frames int64 [k], numbers float16 [views, k, d]


def _looked_at(samples: Sequence[Sample], encoder: Encoder, views: int, rng: np.random.Generator) -> Seen:
    """Every picture of the samples through the encoder, as it is and varied."""
    pictures = dict(sorted((f, p) for s in samples for f, p in zip(s.row["frames"], s.pictures, strict=True)))
    decoded = [decode_picture(p, MAX_PX) for p in pictures.values()]
    numbers = [embed(encoder, decoded if view == 0 else _varied(decoded, rng)) for view in range(views)]
    return np.array(list(pictures)), np.stack(numbers).astype(np.float16)


def _stored(
    con: duckdb.DuckDBPyConnection,
    key: tuple[str, int],
    samples: Sequence[Sample],
    encoder: Encoder,
    config: LaptopConfig,
) -> Seen | None:
    """What this encoder saw of an episode by the camera of its samples, with this grid; None where it did not look.

    Raises EmbeddingsError.
    """
    dataset, episode = key
    camera = next(s.row["camera"] for s in samples if _has_progress(s))
    found = episode_embeddings(con, dataset, [episode], [camera]).get(episode)
    width = WHOLE + CELL * config.embeddings.grid**2
    if found is None or found.encoder != encoder.title or found.halves.shape[1] != width:
        return None
    return found.frame_indices, found.halves[None]


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


def _run(
    key: tuple[str, int],
    samples: Sequence[Sample],
    task: str | None,
    labels: Mapping[int, float],
    seen: Seen,
    is_stored: bool = False,
) -> Run:
    frames, numbers = seen
    of_progress = [s.row for s in samples if _has_progress(s)]
    return Run(
        *key,
        task=task or of_progress[0]["question"],
        numbers=numbers,
        frames=frames,
        label=np.array([labels.get(f, np.nan) for f in frames.tolist()], np.float32),
        step=_step(samples),
        shown=max(len(row["frames"]) for row in of_progress),
        is_stored=is_stored,
    )


def _asked(samples: Sequence[Sample]) -> dict[int, float]:
    """The labels of the frames that samples of progress ask about."""
    return {s.row["frames"][-1]: float(s.row["progress"]) for s in samples if _has_progress(s)}


def _has_progress(sample: Sample) -> bool:
    return sample.row["family"] == PROGRESS and sample.row["progress"] is not None


def _step(samples: Sequence[Sample]) -> float:
    """Frames between two pictures of a window; 1 where windows show one picture."""
    between = [b - a for s in samples if _has_progress(s) for a, b in pairwise(s.row["frames"])]
    return float(max(between, default=1))


def _tasks(con: duckdb.DuckDBPyConnection) -> dict[tuple[str, int], str]:
    rows = con.execute("SELECT dataset, episode_index, task FROM episodes WHERE status = 'ok'").fetchall()
    return {(dataset, episode): task_text(task) for dataset, episode, task in rows}


def _labels(con: duckdb.DuckDBPyConnection, datasets: Sequence[str]) -> Mapping[tuple[str, int], dict[int, float]]:
    found: dict[tuple[str, int], dict[int, float]] = {}
    for dataset, episode, frame, progress in con.execute(LABELS, [list(datasets)]).fetchall():
        found.setdefault((dataset, episode), {})[frame] = progress
    return found


def _varied(pictures: Sequence[np.ndarray], rng: np.random.Generator) -> list[np.ndarray]:
    """One change of light and place for all pictures of a run, so that its motion stays what it was."""
    return list(augment(Item("", tuple(pictures)), rng).pictures)
