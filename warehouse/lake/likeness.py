"""Search by likeness: frames like one frame, and runs like one run, by what the same encoder saw of them.

Every picture of that encoder is compared, in one pass over the views `similar_frames` and `similar_runs`: what is in
memory grows with the runs, not with their pictures. The functions take a DuckDB connection with the lake in use.
"""

from dataclasses import dataclass, replace

import duckdb

from warehouse.lake.connection import has, literal
from warehouse.lake.embeddings import EmbeddingsError

HOW_TO = (
    'put when = "always" below [embeddings] into a build\'s file and run proccorpus build --config FILE (docs/sql.md)'
)
MOST = 20


@dataclass(frozen=True)
class Asked:
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


@dataclass(frozen=True)
class SimilarFrame:
    """The most similar frame of another run; `likeness` is a cosine, -1..1."""

    dataset: str
    episode_index: int
    camera: str
    frame_index: int
    timestamp_s: float
    task: str | None
    likeness: float


@dataclass(frozen=True)
class SimilarRun:
    """Another run; `likeness` is a mean of cosines, -1..1."""

    dataset: str
    episode_index: int
    task: str | None
    likeness: float


def frames_like(
    con: duckdb.DuckDBPyConnection,
    dataset: str,
    episode_index: int,
    frame_index: int,
    camera: str | None = None,
    among: str | None = None,
    most: int = MOST,
) -> tuple[Asked, list[SimilarFrame]]:
    """The frames most like one frame, one of each other run, the most similar first.

    camera: of the frame asked for; default: the first usable one that an encoder looked at. Others may be of any.
    among: only runs of this dataset.

    Raises EmbeddingsError: there is no such episode, frame or camera, no encoder looked at it, or another one looked at
    the dataset `among`.
    """
    asked = _at_frame(con, _asked(con, dataset, episode_index, camera, among), frame_index)
    rows = con.execute(
        "SELECT s.other_dataset, s.other_episode, s.other_camera, s.other_frame, s.other_frame / c.fps, f.task, "
        f"s.likeness FROM ({_most_similar('similar_frames', among, f'frame_index = {asked.frame_index}')}) s "
        "JOIN episode_facts f ON f.dataset = s.other_dataset AND f.episode_index = s.other_episode "
        "JOIN episode_content c ON c.dataset = s.other_dataset AND c.episode_index = s.other_episode "
        "ORDER BY s.likeness DESC, 1, 2",
        [dataset, episode_index, asked.camera, most],
    ).fetchall()
    return asked, [SimilarFrame(*row) for row in rows]


def runs_like(
    con: duckdb.DuckDBPyConnection,
    dataset: str,
    episode_index: int,
    camera: str | None = None,
    among: str | None = None,
    most: int = MOST,
) -> tuple[Asked, list[SimilarRun]]:
    """The runs most like one run, the most similar first: eight moments of it, each beside their most similar frame.

    camera, among and what is raised: as of frames_like.
    """
    asked = _asked(con, dataset, episode_index, camera, among)
    rows = con.execute(
        f"SELECT s.other_dataset, s.other_episode, f.task, s.likeness FROM ({_most_similar('similar_runs', among)}) s "
        "JOIN episode_facts f ON f.dataset = s.other_dataset AND f.episode_index = s.other_episode "
        "ORDER BY s.likeness DESC, 1, 2",
        [dataset, episode_index, asked.camera, most],
    ).fetchall()
    return asked, [SimilarRun(*row) for row in rows]


def _most_similar(view: str, among: str | None, which: str = "true") -> str:
    """SQL over a view: its most similar rows of what is asked for."""
    of = "true" if among is None else f"other_dataset = {literal(among)}"
    return (
        f"FROM {view} WHERE dataset = $1 AND episode_index = $2 AND camera = $3 AND {which} AND {of} "
        "ORDER BY likeness DESC, other_dataset, other_episode LIMIT $4"
    )


def _asked(
    con: duckdb.DuckDBPyConnection, dataset: str, episode_index: int, camera: str | None, among: str | None
) -> Asked:
    """What is asked for, by which camera and encoder. Raises EmbeddingsError."""
    encoders = _encoders(con)
    if dataset not in encoders:
        raise EmbeddingsError(_nothing_of(con, dataset))
    by_camera = dict(
        con.execute(
            "SELECT e.camera, min(e.encoder) FROM embeddings e "
            "LEFT JOIN episode_content c ON c.dataset = e.dataset AND c.episode_index = e.episode_index "
            "WHERE e.dataset = ? AND e.episode_index = ? "
            "GROUP BY e.camera, c.usable_cameras ORDER BY list_position(c.usable_cameras, e.camera), 1",
            [dataset, episode_index],
        ).fetchall()
    )
    if not by_camera:
        raise EmbeddingsError(_why_not(con, dataset, episode_index))
    name = next(iter(by_camera)) if camera is None else camera
    if name not in by_camera:
        where, cameras = f"{dataset} episode {episode_index}", ", ".join(by_camera)
        raise EmbeddingsError(f"{where}: no encoder has looked at a camera {name!r}, only at {cameras}")

    encoder = by_camera[name]
    if among is not None and among not in encoders:
        raise EmbeddingsError(_nothing_of(con, among))
    if among is not None and encoder not in encoders[among]:
        raise EmbeddingsError(
            f"{encoder} has looked at {dataset}, {' and '.join(encoders[among])} at {among}: what two encoders see "
            "cannot be compared. Build one of them again with the encoder, size_px and grid of the other "
            "(docs/sql.md)"
        )
    not_compared = {other: ", ".join(by) for other, by in encoders.items() if encoder not in by}
    return Asked(dataset, episode_index, name, encoder, None, not_compared)


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


def _at_frame(con: duckdb.DuckDBPyConnection, asked: Asked, frame_index: int) -> Asked:
    """With the frame that was looked at nearest to one; of two the earlier. Raises EmbeddingsError: no such frame."""
    of_episode = [asked.dataset, asked.episode_index]
    num_frames, nearest = con.execute(
        "SELECT any_value(c.num_frames), arg_min(e.frame_index, (abs(e.frame_index - $4), e.frame_index)) "
        "FROM embeddings e JOIN episode_content c ON c.dataset = e.dataset AND c.episode_index = e.episode_index "
        "WHERE e.dataset = $1 AND e.episode_index = $2 AND e.camera = $3",
        [*of_episode, asked.camera, frame_index],
    ).fetchall()[0]
    if not 0 <= frame_index < num_frames:
        raise EmbeddingsError(
            f"{asked.dataset} episode {asked.episode_index} has {num_frames} frames, from 0: there is no {frame_index}"
        )
    return replace(asked, frame_index=nearest)
