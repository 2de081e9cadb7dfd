"""Embeddings as the lake holds them: what a frozen encoder saw in the pictures of some episodes.

`episode_embeddings` takes a DuckDB connection with the lake in use: that of a Lake, or a reader's own.
"""

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import duckdb
import numpy as np
import pyarrow as pa

from core.errors import UserError

Part = Literal["embedding", "cells"]
ROWS_AT_A_TIME = 4096


class EmbeddingsError(UserError):
    """Embeddings that are not as they are asked for: of which dataset, and what to do."""


@dataclass(frozen=True)
class EpisodeEmbeddings:
    """What an encoder saw of one episode, at the frames at which all of `cameras` were looked at.

    encoder: name and input size, as `embeddings.encoder`.
    frame_indices: int64 [k], rising.
    halves: float16 [k, d]; of each camera in turn the parts that were asked for.
    """

    encoder: str
    frame_indices: np.ndarray
    cameras: tuple[str, ...]
    halves: np.ndarray

    @property
    def features(self) -> np.ndarray:
        """`halves` to count with: float32 [k, d]"""
        return self.halves.astype(np.float32)


def episode_embeddings(
    con: duckdb.DuckDBPyConnection,
    dataset: str,
    episodes: Collection[int],
    cameras: Sequence[str] | None = None,
    parts: Sequence[Part] = ("embedding", "cells"),
) -> dict[int, EpisodeEmbeddings]:
    """The embeddings of some episodes of a dataset, in order; episodes that have none are left out.

    cameras: only episodes that have them all, and these in this order. None: of each episode all that it has, by
    preference.
    parts: `embedding` is 256 numbers of the whole picture, `cells` 64 of each cell of the grid, row by row
    (annotate.embeddings says how they are made). Two bytes a number are kept: 500 episodes of 10 s by one camera at
    5 Hz are 64 MB.

    Raises EmbeddingsError: they were made by several encoders, or with several grids.
    """
    encoder = _only_encoder(con, dataset, episodes)
    preferred = _usable_cameras(con, dataset, episodes)
    by_episode: dict[int, EpisodeEmbeddings] = {}
    for episode, of_camera in _by_episode(con, dataset, episodes, parts):
        wanted = tuple(cameras or (camera for camera in preferred[episode] if camera in of_camera))
        if not wanted or any(camera not in of_camera for camera in wanted):
            continue
        frames, halves = _side_by_side([of_camera[camera] for camera in wanted])
        by_episode[episode] = EpisodeEmbeddings(encoder, frames, wanted, halves)

    if len({e.halves.shape[1] // len(e.cameras) for e in by_episode.values()}) > 1:
        raise EmbeddingsError(f"{dataset}: its embeddings have grids of several sizes; build it again")
    return by_episode


def _only_encoder(con: duckdb.DuckDBPyConnection, dataset: str, episodes: Collection[int]) -> str:
    """Raises EmbeddingsError."""
    rows = con.execute(
        "SELECT DISTINCT encoder FROM embeddings WHERE dataset = ? AND list_contains(?, episode_index) ORDER BY 1",
        [dataset, sorted(episodes)],
    ).fetchall()
    if len(rows) > 1:
        names = ", ".join(encoder for (encoder,) in rows)
        raise EmbeddingsError(f"{dataset}: its embeddings are of several encoders ({names}); build it again")
    return rows[0][0] if rows else ""


def _usable_cameras(
    con: duckdb.DuckDBPyConnection, dataset: str, episodes: Collection[int]
) -> Mapping[int, Sequence[str]]:
    rows = con.execute(
        "SELECT episode_index, usable_cameras FROM episode_content "
        "WHERE dataset = ? AND list_contains(?, episode_index)",
        [dataset, sorted(episodes)],
    ).fetchall()
    return dict(rows)


_Seen = tuple[np.ndarray, np.ndarray]  # frames int64 [k], float16 [k, d]


def _by_episode(
    con: duckdb.DuckDBPyConnection, dataset: str, episodes: Collection[int], parts: Sequence[Part]
) -> Iterator[tuple[int, dict[str, _Seen]]]:
    """Each episode's cameras with what was seen by them; a part of the rows is in memory at a time."""
    numbers = parts[0] if len(parts) == 1 else f"list_concat({', '.join(parts)})"
    reader = con.execute(
        f"SELECT episode_index, camera, frame_index, {numbers} AS numbers FROM embeddings "
        "WHERE dataset = ? AND list_contains(?, episode_index) ORDER BY episode_index, camera, frame_index",
        [dataset, sorted(episodes)],
    ).to_arrow_reader(ROWS_AT_A_TIME)

    # Rows of an episode follow one another, and may go on in the next batch
    episode, pieces = -1, dict[str, list[_Seen]]()
    for batch in reader:
        for index, camera, frames, halves in _runs(batch):
            if index != episode and pieces:
                yield episode, {name: _joined(seen) for name, seen in pieces.items()}
                pieces = {}
            episode = index
            pieces.setdefault(camera, []).append((frames, halves))
    if pieces:
        yield episode, {name: _joined(seen) for name, seen in pieces.items()}


def _runs(batch: pa.RecordBatch) -> Iterator[tuple[int, str, np.ndarray, np.ndarray]]:
    """Rows of a batch that follow one another and are of one camera of one episode."""
    episodes = batch.column("episode_index").to_numpy()
    cameras = batch.column("camera").to_numpy(zero_copy_only=False)
    frames, numbers = batch.column("frame_index").to_numpy(), batch.column("numbers")
    begins = np.flatnonzero((np.diff(episodes, prepend=-1) != 0) | (cameras != np.roll(cameras, 1)))
    for begin, end in zip(begins, [*begins[1:], batch.num_rows], strict=True):
        rows = numbers.slice(begin, end - begin)
        halves = rows.flatten().to_numpy().reshape(len(rows), -1).astype(np.float16)
        yield int(episodes[begin]), str(cameras[begin]), frames[begin:end], halves


def _joined(seen: Sequence[_Seen]) -> _Seen:
    return np.concatenate([frames for frames, _ in seen]), np.concatenate([halves for _, halves in seen])


def _side_by_side(of_cameras: Sequence[_Seen]) -> _Seen:
    """What several cameras show at the frames that all of them were looked at."""
    common = of_cameras[0][0]
    for frames, _ in of_cameras[1:]:
        common = np.intersect1d(common, frames)
    rows = [halves[np.searchsorted(frames, common)] for frames, halves in of_cameras]
    return common, np.concatenate(rows, axis=1)
