"""The runs that a laptop model learns from: what a release's shards show of each episode, as numbers of the encoder."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path

import duckdb
import numpy as np

from annotate.embeddings.encoders import Encoder
from annotate.embeddings.projection import CELL, WHOLE
from annotate.samples.procvqa import ACTIONS, PROGRESS, SEGMENTATION, task_text
from training.data import augment
from training.laptop.config import MAX_PX, LaptopConfig
from training.laptop.layout import Layout
from training.laptop.pictures import embed
from training.pictures import Item, decode_picture
from warehouse.lake import Lake
from warehouse.lake.embeddings import EpisodeEmbeddings, episode_embeddings
from warehouse.lake.sql import open_for_users
from warehouse.lake.states import at_frames, episode_states
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

    numbers: float16 [views, k, d], of each picture as it is and varied; of several cameras those of each in turn, NaN
    where one shows nothing. frames: int64 [k]. label: float32 [k], NaN where the release has none. step: frames between
    the pictures of a window of the release; shown: how many at most. is_stored: the numbers are the lake's. state:
    float32 [k, l], the robot's, NaN where it is not known; None of a run without one. layout: the model's.
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
    state: np.ndarray | None = None
    layout: Layout | None = None

    def moments(self, view: int, places: Sequence[int] | slice = slice(None)) -> np.ndarray:
        """Some of its moments, or all, as the model's layout has them; [n, width]."""
        numbers = self.numbers[view][places]
        if self.layout is None or not self.layout.states:
            return numbers
        if self.state is None:
            return self.layout.filled(numbers)
        return np.concatenate([numbers, self.layout.placed(self.state[places])], -1)


def encoder_width(runs: Sequence[Run], config: LaptopConfig) -> int:
    """Numbers of one picture."""
    return runs[0].numbers.shape[-1] // max(1, len(config.cameras))


def state_lengths(runs: Sequence[Run]) -> tuple[int, ...]:
    """Of the states that runs have, in order."""
    return tuple(sorted({run.state.shape[1] for run in runs if run.state is not None}))


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
        runs.append(_read_run(con, key, samples, tasks.get(key), labels.get(key, {}) | asked, encoder, config, seed))
    return runs


def episode_run(lake: Lake, samples: Sequence[Sample], encoder: Encoder, config: LaptopConfig, seed: int) -> Run:
    """The run of one episode from samples of its progress, as the lake has it now; labels as in read_runs."""
    key = samples[0].row["dataset"], samples[0].row["episode_index"]
    con = open_for_users(lake.workspace, lake.snapshot())
    known = _labels(con, [key[0]]).get(key, {}) | _asked(samples)
    if not config.cameras:
        config = config.model_copy(update={"numbers_from": "shards"})
    return _read_run(con, key, samples, _tasks(con).get(key), known, encoder, config, seed)


def _read_run(
    con: duckdb.DuckDBPyConnection,
    key: tuple[str, int],
    samples: Sequence[Sample],
    task: str | None,
    labels: Mapping[int, float],
    encoder: Encoder,
    config: LaptopConfig,
    seed: int,
) -> Run:
    """What the lake holds of it, where the configuration says so; else what the samples show."""
    stored = _stored(con, key, samples, encoder, config) if config.numbers_from == "lake" else None
    seen = stored
    if seen is None:
        frames, numbers = _looked_at(samples, encoder, config.views, np.random.default_rng([seed, key[1]]))
        seen = frames, _of_camera(numbers, _camera(samples), config.cameras)
    run = _run(key, samples, task, labels, seen, stored is not None)
    if not config.state:
        return run
    found = episode_states(con, key[0], [key[1]]).get(key[1])
    return run if found is None else replace(run, state=at_frames(found, run.frames))


def _of_camera(numbers: np.ndarray, camera: str, cameras: Sequence[str]) -> np.ndarray:
    """The numbers [views, k, d] of one camera's pictures among those of several, [views, k, cameras d]."""
    if not cameras:
        return numbers
    nothing = np.full_like(numbers, np.nan)
    return np.concatenate([numbers if name == camera else nothing for name in cameras], -1)


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
    """What this encoder saw of an episode by the configured cameras, or by that of its samples, with this grid; None
    where it looked at none of them.

    Raises EmbeddingsError.
    """
    dataset, episode = key
    width = WHOLE + CELL * config.embeddings.grid**2
    found: dict[str, EpisodeEmbeddings] = {}
    for camera in config.cameras or (_camera(samples),):
        seen = episode_embeddings(con, dataset, [episode], [camera]).get(episode)
        if seen is not None and seen.encoder == encoder.title and seen.halves.shape[1] == width:
            found[camera] = seen
    if not found:
        return None
    frames = np.unique(np.concatenate([seen.frame_indices for seen in found.values()]))
    numbers = np.full((len(frames), max(1, len(config.cameras)), width), np.nan, np.float16)
    for camera, seen in found.items():
        at = config.cameras.index(camera) if config.cameras else 0
        numbers[np.searchsorted(frames, seen.frame_indices), at] = seen.halves
    return frames, numbers.reshape(1, len(frames), -1)


def _camera(samples: Sequence[Sample]) -> str:
    """That of an episode's samples of progress."""
    return next(s.row["camera"] for s in samples if _has_progress(s))


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
