"""Embeddings as the lake holds them: what a frozen encoder saw in the pictures of some episodes; and search by them.

Frames like one frame, and runs like one run, are found by what the same encoder saw of them. Every picture of that
encoder is compared, in one pass over the views `similar_frames` and `similar_runs`: what is in memory grows with the
runs, not with their pictures.
`episode_embeddings` takes a DuckDB connection with the lake in use: that of a Lake, or a reader's own.
"""

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from functools import reduce
from itertools import groupby
from operator import itemgetter
from typing import Any, Literal

import duckdb
import numpy as np

from core.errors import UserError
from core.names import did_you_mean
from warehouse.lake.connection import has, literal

Part = Literal["embedding", "cells"]
ROWS_AT_A_TIME = 64  # cameras of episodes
HOW_TO = (
    'put when = "always" below [embeddings] into a build\'s file and run proccorpus build '
    "--config FILE (docs/sql.md)"
)
MOST = 20


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
    parameters = [dataset, sorted(episodes)]
    of_these = "dataset = ? AND list_contains(?, episode_index)"
    encoders = con.execute(
        f"SELECT DISTINCT encoder FROM embeddings WHERE {of_these} ORDER BY 1", parameters
    ).fetchall()
    if len(encoders) > 1:
        names = ", ".join(map(itemgetter(0), encoders))
        raise UserError(
            f"{dataset}: its embeddings are of several encoders ({names}); build it again"
        )
    usable = f"SELECT episode_index, usable_cameras FROM episode_content WHERE {of_these}"
    preferred: dict[int, list[str]] = dict(con.execute(usable, parameters).fetchall())

    by_episode: dict[int, EpisodeEmbeddings] = {}
    for episode, episode_rows in groupby(
        _seen(con, of_these, parameters, parts), key=itemgetter(0)
    ):
        of_camera = {camera: (frames, halves) for _, camera, frames, halves in episode_rows}
        requested_cameras = tuple(cameras or filter(of_camera.__contains__, preferred[episode]))
        if requested_cameras and of_camera.keys() >= set(requested_cameras):
            # The frames that all of them were looked at
            frames = reduce(np.intersect1d, (of_camera[camera][0] for camera in requested_cameras))
            rows = [
                halves[np.searchsorted(camera_frames, frames)]
                for camera_frames, halves in map(of_camera.__getitem__, requested_cameras)
            ]
            by_episode[episode] = EpisodeEmbeddings(
                encoders[0][0], frames, requested_cameras, np.concatenate(rows, axis=1)
            )
    if len({e.halves.shape[1] // len(e.cameras) for e in by_episode.values()}) > 1:
        raise UserError(f"{dataset}: its embeddings have grids of several sizes; build it again")
    return by_episode


def _seen(
    con: duckdb.DuckDBPyConnection, condition: str, values: list[Any], parts: Sequence[Part]
) -> Iterator[tuple[int, str, np.ndarray, np.ndarray]]:
    """What was seen by each camera of each episode, in order: frames int64 [k], float16 [k, d]."""
    numbers = parts[0] if len(parts) == 1 else f"list_concat({', '.join(parts)})"
    reader = con.execute(
        "SELECT episode_index, camera, list(frame_index ORDER BY frame_index), "
        f"flatten(list({numbers} ORDER BY frame_index)) FROM embeddings WHERE {condition} GROUP BY 1, 2 ORDER BY 1, 2",
        values,
    ).to_arrow_reader(ROWS_AT_A_TIME)
    for batch in reader:
        for episode, camera, frames, of_frames in zip(*batch.columns, strict=True):
            halves = of_frames.values.to_numpy().astype(np.float16)
            yield (
                episode.as_py(),
                camera.as_py(),
                frames.values.to_numpy(),
                halves.reshape(len(frames), -1),
            )


@dataclass(frozen=True)
class SimilarityQuery:
    """What others are compared with.

    frame_index: the frame, of those that the encoder looked at, that is nearest to the one asked for; None: a run.
    not_compared: of datasets that only other encoders looked at, which those are.
    """

    dataset: str
    episode_index: int
    camera: str
    encoder: str
    frame_index: int | None
    not_compared: dict[str, str]


def most_similar(
    con: duckdb.DuckDBPyConnection,
    dataset: str,
    episode_index: int,
    frame_index: int | None = None,
    camera: str | None = None,
    among: str | None = None,
    max_matches: int = MOST,
) -> tuple[SimilarityQuery, list[dict[str, Any]]]:
    """The frames most like one frame, one of each other run, or without a frame the runs most like
    one run (eight moments of it, each beside their most similar frame); the most similar first.

    Rows have dataset, episode_index, of frames also camera, frame_index and timestamp_s, then task
    and likeness: a cosine, or a mean of cosines, -1..1. camera: of what is asked for; default: the
    first usable one that an encoder looked at. Others may be of any. among: only runs of this
    dataset.

    Raises UserError: there is no such episode, frame or camera, no encoder looked at it, or another
    one looked at the dataset `among`.
    """
    query = _asked(con, dataset, episode_index, frame_index, camera, among)
    view = "similar_runs"
    frame_condition = "true"
    of_frame = ""
    if frame_index is not None:
        view = "similar_frames"
        frame_condition = f"frame_index = {query.frame_index}"
        of_frame = "s.other_camera AS camera, s.other_frame AS frame_index, s.other_frame / c.fps AS timestamp_s, "
    dataset_condition = "true" if among is None else f"other_dataset = {literal(among)}"
    matches = con.execute(
        f"SELECT s.other_dataset AS dataset, s.other_episode AS episode_index, {of_frame}f.task, s.likeness FROM "
        f"(FROM {view} WHERE dataset = $1 AND episode_index = $2 AND camera = $3 AND {frame_condition} "
        f"AND {dataset_condition} ORDER BY likeness DESC, other_dataset, other_episode LIMIT {int(max_matches)}) s "
        "JOIN episode_facts f ON f.dataset = s.other_dataset AND f.episode_index = s.other_episode "
        "JOIN episode_content c ON c.dataset = s.other_dataset AND c.episode_index = s.other_episode "
        "ORDER BY s.likeness DESC, 1, 2",
        [dataset, episode_index, query.camera],
    )
    return query, matches.to_arrow_table().to_pylist()


def _asked(
    con: duckdb.DuckDBPyConnection,
    dataset: str,
    episode_index: int,
    frame_index: int | None,
    camera: str | None,
    among: str | None,
) -> SimilarityQuery:
    """What is asked for, by which camera and encoder, and by the frame that was looked at nearest to `frame_index`, of
    two the earlier. Raises UserError."""
    encoders = _encoders(con, {dataset, among or dataset})
    camera, encoder, num_frames, nearest = _of_camera(
        con, [dataset, episode_index, frame_index], camera
    )
    if among is not None and encoder not in encoders[among]:
        raise UserError(
            f"{encoder} has looked at {dataset}, {' and '.join(encoders[among])} at {among}: what two encoders see "
            "cannot be compared. Build one of them again with the encoder, size_px and grid of the other "
            "(docs/sql.md)"
        )
    if frame_index is not None and not 0 <= frame_index < num_frames:
        raise UserError(
            f"{dataset} episode {episode_index} has {num_frames} frames, from 0: there is no {frame_index}"
        )
    not_compared = {
        other_dataset: ", ".join(encoder_names)
        for other_dataset, encoder_names in encoders.items()
        if encoder not in encoder_names
    }
    return SimilarityQuery(dataset, episode_index, camera, encoder, nearest, not_compared)


def _encoders(con: duckdb.DuckDBPyConnection, requested_datasets: set[str]) -> dict[str, list[str]]:
    """By dataset the encoders that looked at it. Raises UserError where none looked at one that is wanted."""
    encoders: dict[str, list[str]] = {}
    if has(con, "similar_runs"):  # which a lake of a version before there was a search has not
        sql = "SELECT dataset, list(DISTINCT encoder ORDER BY encoder) FROM embeddings GROUP BY 1 ORDER BY 1"
        encoders = dict(con.execute(sql).fetchall())
    for name in sorted(requested_datasets - encoders.keys()):
        names = [
            dataset_name
            for (dataset_name,) in con.execute("SELECT dataset FROM datasets ORDER BY 1").fetchall()
        ]
        if name in names:
            raise UserError(f"no encoder has looked at {name}: {HOW_TO}")
        hint = did_you_mean(name, names) or "; proccorpus status lists them"
        raise UserError(f"there is no dataset {name!r} in this corpus{hint}")
    return encoders


def _of_camera(
    con: duckdb.DuckDBPyConnection, parameters: list[Any], camera: str | None
) -> tuple[str, str, int, int | None]:
    """Camera, encoder, frames of the episode, and the frame that was looked at nearest to the one asked for."""
    rows = con.execute(
        "SELECT e.camera, min(e.encoder), any_value(c.num_frames), arg_min(e.frame_index, "
        "(abs(e.frame_index - $3::BIGINT), e.frame_index)) FILTER ($3 IS NOT NULL) FROM embeddings e "
        "LEFT JOIN episode_content c ON c.dataset = e.dataset AND c.episode_index = e.episode_index "
        "WHERE e.dataset = $1 AND e.episode_index = $2 "
        "GROUP BY e.camera, c.usable_cameras ORDER BY list_position(c.usable_cameras, e.camera), 1",
        parameters,
    ).fetchall()
    problem = f"{parameters[0]} episode {parameters[1]}: no encoder has looked at"
    if not rows:
        sql = "SELECT status, reason, detail FROM episodes WHERE dataset = ? AND episode_index = ?"
        for status, reason, detail in con.execute(sql, parameters[:2]).fetchall():
            if status != "ok":
                raise UserError(f"{problem} it, because it cannot be used: {reason}: {detail}")
            raise UserError(f"{problem} it: {HOW_TO}")
        raise UserError(f"{parameters[0]} has no episode {parameters[1]}")
    by_name = {row[0]: row for row in rows}
    if camera is not None and camera not in by_name:
        raise UserError(f"{problem} a camera {camera!r}, only at {', '.join(by_name)}")
    return by_name[camera or rows[0][0]]
