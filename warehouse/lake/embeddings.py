"""Embeddings as the lake holds them: what a frozen encoder saw in the pictures of some episodes.

`episode_embeddings` takes a DuckDB connection with the lake in use: that of a Lake, or a reader's own.
"""

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from operator import itemgetter
from typing import Any, Literal

import duckdb
import numpy as np

from core.errors import UserError

Part = Literal["embedding", "cells"]
ROWS_AT_A_TIME = 64  # cameras of episodes


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

    Raises UserError: they were made by several encoders, or with several grids.
    """
    here = [dataset, sorted(episodes)]
    of_these = "dataset = ? AND list_contains(?, episode_index)"
    encoders = con.execute(f"SELECT DISTINCT encoder FROM embeddings WHERE {of_these} ORDER BY 1", here).fetchall()
    if len(encoders) > 1:
        names = ", ".join(encoder for (encoder,) in encoders)
        raise UserError(f"{dataset}: its embeddings are of several encoders ({names}); build it again")
    usable = f"SELECT episode_index, usable_cameras FROM episode_content WHERE {of_these}"
    preferred: dict[int, list[str]] = dict(con.execute(usable, here).fetchall())

    by_episode: dict[int, EpisodeEmbeddings] = {}
    for episode, seen in groupby(_seen(con, of_these, here, parts), key=itemgetter(0)):
        of_camera = {camera: (frames, halves) for _, camera, frames, halves in seen}
        wanted = tuple(cameras or filter(of_camera.__contains__, preferred[episode]))
        if wanted and of_camera.keys() >= set(wanted):
            frames, halves = _side_by_side([of_camera[camera] for camera in wanted])
            by_episode[episode] = EpisodeEmbeddings(encoders[0][0], frames, wanted, halves)
    if len({e.halves.shape[1] // len(e.cameras) for e in by_episode.values()}) > 1:
        raise UserError(f"{dataset}: its embeddings have grids of several sizes; build it again")
    return by_episode


def _seen(
    con: duckdb.DuckDBPyConnection, where: str, values: list[Any], parts: Sequence[Part]
) -> Iterator[tuple[int, str, np.ndarray, np.ndarray]]:
    """What was seen by each camera of each episode, in order: frames int64 [k], float16 [k, d]."""
    numbers = parts[0] if len(parts) == 1 else f"list_concat({', '.join(parts)})"
    reader = con.execute(
        "SELECT episode_index, camera, list(frame_index ORDER BY frame_index), "
        f"flatten(list({numbers} ORDER BY frame_index)) FROM embeddings WHERE {where} GROUP BY 1, 2 ORDER BY 1, 2",
        values,
    ).to_arrow_reader(ROWS_AT_A_TIME)
    for batch in reader:
        for episode, camera, frames, of_frames in zip(*batch.columns, strict=True):
            halves = of_frames.values.to_numpy().astype(np.float16)
            yield episode.as_py(), camera.as_py(), frames.values.to_numpy(), halves.reshape(len(frames), -1)


def _side_by_side(of_cameras: Sequence[tuple[np.ndarray, np.ndarray]]) -> tuple[np.ndarray, np.ndarray]:
    """What several cameras show at the frames that all of them were looked at."""
    common = of_cameras[0][0]
    for frames, _ in of_cameras[1:]:
        common = np.intersect1d(common, frames)
    rows = [halves[np.searchsorted(frames, common)] for frames, halves in of_cameras]
    return common, np.concatenate(rows, axis=1)
