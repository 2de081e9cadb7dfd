"""Search by similarity: frames like one frame, and runs like one run, by what the same encoder saw of them.

Every picture of that encoder is compared, in one pass over the views `similar_frames` and `similar_runs`: what is in
memory grows with the runs, not with their pictures.
"""

from dataclasses import dataclass
from typing import Any

import duckdb

from core.errors import UserError
from warehouse.lake.connection import has, literal

HOW_TO = (
    'put when = "always" below [embeddings] into a build\'s file and run proccorpus build --config FILE (docs/sql.md)'
)
MOST = 20


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
    most: int = MOST,
) -> tuple[SimilarityQuery, list[dict[str, Any]]]:
    """The frames most like one frame, one of each other run, or without a frame the runs most like one run (eight
    moments of it, each beside their most similar frame); the most similar first.

    Rows have dataset, episode_index, of frames also camera, frame_index and timestamp_s, then task and likeness: a
    cosine, or a mean of cosines, -1..1. camera: of what is asked for; default: the first usable one that an encoder
    looked at. Others may be of any. among: only runs of this dataset.

    Raises UserError: there is no such episode, frame or camera, no encoder looked at it, or another one looked at
    the dataset `among`.
    """
    asked = _asked(con, dataset, episode_index, frame_index, camera, among)
    view, where, of_frame = "similar_runs", "true", ""
    if frame_index is not None:
        view, where = "similar_frames", f"frame_index = {asked.frame_index}"
        of_frame = "s.other_camera AS camera, s.other_frame AS frame_index, s.other_frame / c.fps AS timestamp_s, "
    of = "true" if among is None else f"other_dataset = {literal(among)}"
    found = con.execute(
        f"SELECT s.other_dataset AS dataset, s.other_episode AS episode_index, {of_frame}f.task, s.likeness FROM "
        f"(FROM {view} WHERE dataset = $1 AND episode_index = $2 AND camera = $3 AND {where} "
        f"AND {of} ORDER BY likeness DESC, other_dataset, other_episode LIMIT {int(most)}) s "
        "JOIN episode_facts f ON f.dataset = s.other_dataset AND f.episode_index = s.other_episode "
        "JOIN episode_content c ON c.dataset = s.other_dataset AND c.episode_index = s.other_episode "
        "ORDER BY s.likeness DESC, 1, 2",
        [dataset, episode_index, asked.camera],
    )
    return asked, found.to_arrow_table().to_pylist()


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
    encoders = _encoders(con)
    for name in {dataset, among or dataset} - encoders.keys():
        raise UserError(_nothing_of(con, name))
    where = f"{dataset} episode {episode_index}"
    camera, encoder, num_frames, nearest = _of_camera(con, where, [dataset, episode_index, frame_index], camera)
    if among is not None and encoder not in encoders[among]:
        raise UserError(
            f"{encoder} has looked at {dataset}, {' and '.join(encoders[among])} at {among}: what two encoders see "
            "cannot be compared. Build one of them again with the encoder, size_px and grid of the other "
            "(docs/sql.md)"
        )
    if frame_index is not None and not 0 <= frame_index < num_frames:
        raise UserError(f"{where} has {num_frames} frames, from 0: there is no {frame_index}")
    not_compared = {other: ", ".join(by) for other, by in encoders.items() if encoder not in by}
    return SimilarityQuery(dataset, episode_index, camera, encoder, nearest, not_compared)


def _of_camera(
    con: duckdb.DuckDBPyConnection, where: str, asked: list[Any], camera: str | None
) -> tuple[str, str, int, int | None]:
    """Camera, encoder, frames of the episode, and the frame that was looked at nearest to the one asked for."""
    rows = con.execute(
        "SELECT e.camera, min(e.encoder), any_value(c.num_frames), arg_min(e.frame_index, "
        "(abs(e.frame_index - $3::BIGINT), e.frame_index)) FILTER ($3 IS NOT NULL) FROM embeddings e "
        "LEFT JOIN episode_content c ON c.dataset = e.dataset AND c.episode_index = e.episode_index "
        "WHERE e.dataset = $1 AND e.episode_index = $2 "
        "GROUP BY e.camera, c.usable_cameras ORDER BY list_position(c.usable_cameras, e.camera), 1",
        asked,
    ).fetchall()
    if not rows:
        raise UserError(_why_not(con, asked[0], asked[1]))
    by_name = {row[0]: row for row in rows}
    if camera is not None and camera not in by_name:
        raise UserError(f"{where}: no encoder has looked at a camera {camera!r}, only at {', '.join(by_name)}")
    return by_name[camera or rows[0][0]]


def _encoders(con: duckdb.DuckDBPyConnection) -> dict[str, list[str]]:
    """By dataset the encoders that looked at it; none in a lake of a version before there was a search."""
    if not has(con, "similar_runs"):
        return {}
    sql = "SELECT dataset, list(DISTINCT encoder ORDER BY encoder) FROM embeddings GROUP BY 1 ORDER BY 1"
    return dict(con.execute(sql).fetchall())


def _nothing_of(con: duckdb.DuckDBPyConnection, dataset: str) -> str:
    """Why there are no embeddings of a dataset, and what to do."""
    if con.execute("SELECT 1 FROM datasets WHERE dataset = ?", [dataset]).fetchall():
        return f"no encoder has looked at {dataset}: {HOW_TO}"
    return f"there is no dataset {dataset!r} in this corpus: proccorpus status lists them"


def _why_not(con: duckdb.DuckDBPyConnection, dataset: str, episode_index: int) -> str:
    """Why an episode of a dataset that an encoder looked at has no embeddings itself."""
    where = f"{dataset} episode {episode_index}"
    rows = con.execute(
        "SELECT status, reason, detail FROM episodes WHERE dataset = ? AND episode_index = ?", [dataset, episode_index]
    ).fetchall()
    if not rows:
        return f"{dataset} has no episode {episode_index}"
    status, reason, detail = rows[0]
    if status != "ok":
        return f"{where}: no encoder has looked at it, because it cannot be used: {reason}: {detail}"
    return f"{where}: no encoder has looked at it: {HOW_TO}"
