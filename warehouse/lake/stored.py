"""Labels, signals and keyframes as the lake holds them: segments of episodes by label run, how open grippers are, and
pictures. The one reader of the table segments.

Most functions take a DuckDB connection with the lake in use: that of a Lake, or a reader's own. A lake that is only
read may be of an earlier version, which told no grippers apart: it has `frames.gripper` alone.
"""

import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from itertools import product
from typing import Any

import duckdb
import numpy as np

from core.domain.label import Episode, EpisodeFrame, Label, Segment, StatedEnd
from core.domain.label_run import GateCounts, LabelGate
from core.errors import UserError
from core.values import grouped
from ingest.signals.gripper import GripperSignal, signal_from_row
from warehouse.lake.connection import OF_USABLE, LakeConnection, has

# A lake of an earlier version, and a release made with it, has not all of the columns of labels
EPISODES_SQL = """
    SELECT e.dataset, e.episode_index, e.chunk, e.source_id, e.task, e.tasks, e.num_frames, e.fps, e.cameras,
           e.success, e.content_hash, s.split, a.label_run, a.why AS label_why,
           COLUMNS('^(confidence|named|end_by)$')
    FROM episodes e LEFT JOIN splits s USING (dataset, episode_index)
    LEFT JOIN active_runs a USING (dataset, episode_index)
    LEFT JOIN episode_labels l
      ON l.dataset = e.dataset AND l.episode_index = e.episode_index AND l.label_run = a.label_run
    LEFT JOIN label_quality q
      ON q.dataset = e.dataset AND q.episode_index = e.episode_index AND q.label_run = a.label_run
    WHERE e.status = 'ok'"""
FIELDS = tuple(field.name for field in fields(Episode))


def usable_episodes(
    con: duckdb.DuckDBPyConnection, condition: str = "true", values: Sequence[Any] = ()
) -> list[Episode]:
    """The usable episodes that fit a condition on the columns of EPISODES_SQL, by dataset and episode_index."""
    sql = f"SELECT * FROM ({EPISODES_SQL}) WHERE {condition} ORDER BY dataset, episode_index"
    rows = con.execute(sql, [*values]).to_arrow_table().to_pylist()
    return [episode_from_row(row) for row in rows]


def usable_episode(con: duckdb.DuckDBPyConnection, dataset: str, episode_index: int) -> Episode:
    """An episode that somebody names. Raises UserError where it is not there or cannot be used."""
    key = [dataset, episode_index]
    episodes = usable_episodes(con, "dataset = ? AND episode_index = ?", key)
    if episodes:
        return episodes[0]
    sql = "SELECT reason FROM episodes WHERE dataset = ? AND episode_index = ?"
    reason = con.execute(sql, key).fetchone()
    if reason is None:
        raise UserError(f"{dataset} has no episode {episode_index}")
    raise UserError(f"episode {episode_index} of {dataset} cannot be used: {reason[0]}")


def episode_from_row(row: Mapping[str, Any]) -> Episode:
    """The episode of a row that has the columns of EPISODES_SQL, or some of them; further ones are left out."""
    facts = {name: row[name] for name in FIELDS if name in row}
    lists = {name: tuple(row.get(name) or ()) for name in ("tasks", "cameras")}
    return Episode(**{**facts, **lists, "num_frames": row["num_frames"] or 0})


SEGMENT_COLUMNS = "|".join(f.name for f in fields(Segment))
COUNTING = "SEMI JOIN active_runs USING (dataset, episode_index, label_run)"
RUNS = """
SELECT e.dataset, e.episode_index, coalesce(j.same_as, e.task, ''), e.success, {quality}, a.label_run
FROM episodes e
LEFT JOIN current_joined_tasks j ON j.dataset = e.dataset AND j.task = e.task
LEFT JOIN active_runs a ON a.dataset = e.dataset AND a.episode_index = e.episode_index
{measured}
WHERE e.status = 'ok'"""
MEASURED = "LEFT JOIN demonstration_quality q ON q.dataset = e.dataset AND q.episode_index = e.episode_index"


def numbers_in_source(lake: LakeConnection, dataset: str) -> dict[int, int]:
    """Of each listed episode its number in the source, by ours.

    A release of an earlier version has no column of it: there the two are equal.
    """
    columns = "COLUMNS('^(episode_index|source_index)$')"
    numbers = {}
    for row in lake.dicts(f"SELECT {columns} FROM episode_facts WHERE dataset = ?", [dataset]):
        other = row.get("source_index")
        numbers[row["episode_index"]] = row["episode_index"] if other is None else other
    return numbers


def labels_of(
    con: duckdb.DuckDBPyConnection,
    dataset: str,
    chunk: int | None = None,
    *,
    episodes: Sequence[int] | None = None,
    label_run: str | None = None,
    whole: bool = False,
) -> dict[int, Label]:
    """The labels of a dataset, of one chunk of it, or of some episodes, by episode; those without
    one are missing.

    label_run: whose labels; None: the active ones. whole: with what episode_labels says, and
    progress; else they are segments alone.
    """
    filters = {
        "dataset = ?": dataset,
        "chunk = ?": chunk,
        "label_run = ?": label_run,
        "list_contains(?, episode_index)": None if episodes is None else list(episodes),
    }
    active = "active_" if label_run is None else ""
    labels = {
        episode: label for (episode, _), label in _read(con, f"{active}segments", filters).items()
    }
    if not whole:
        return labels
    rows = _label_rows(con, filters, active and COUNTING, "COLUMNS(c -> c <> 'curve')")
    condition, values = _where(filters)
    curves = con.execute(
        f"SELECT episode_index, progress FROM {active}progress WHERE {condition} ORDER BY episode_index, frame_index",
        values,
    ).to_arrow_table()
    index = curves["episode_index"].to_numpy()
    progress = curves["progress"].to_numpy()
    return {
        episode: _with_row(label, rows.get(episode, {}), progress[rows_of_episode(index, episode)])
        for episode, label in labels.items()
    }


def annotated_labels(
    con: duckdb.DuckDBPyConnection, dataset: str, chunk: int, label_run: str
) -> dict[int, Label]:
    """The labels of a run as its annotator made them, by episode: with progress only where it states that itself."""
    filters = {"dataset = ?": dataset, "chunk = ?": chunk, "label_run = ?": label_run}
    rows = _label_rows(con, filters, "", "*")
    labels = {}
    for (episode, _), label in _read(con, "segments", filters).items():
        row = rows[episode]
        labels[episode] = _with_row(label, row, np.array(row["curve"] or (), np.float32))
    return labels


def _label_rows(
    con: duckdb.DuckDBPyConnection, filters: Mapping[str, Any], joined: str, columns: str
) -> dict[int, dict[str, Any]]:
    """Rows of episode_labels by episode. A lake of an earlier version has not all of the columns."""
    condition, values = _where(filters)
    rows = con.execute(f"SELECT {columns} FROM episode_labels {joined} WHERE {condition}", values)
    return {row["episode_index"]: row for row in rows.to_arrow_table().to_pylist()}


def _with_row(label: Label, row: Mapping[str, Any], progress: np.ndarray) -> Label:
    """The label with what its row of episode_labels says, and with progress."""
    names = ("confidence", "task", "steps_from", "correction_id")
    reference_episode = row.get("as_far_as_episode")
    if reference_episode is None:
        as_far_as = None
    else:
        as_far_as = EpisodeFrame(reference_episode, row["as_far_as_frame"])
    return replace(
        label,
        **{name: row.get(name) for name in names},
        plan=tuple(row.get("plan") or ()),
        progress=progress,
        task_inferred=bool(row.get("task_inferred")),
        needs_review=bool(row.get("needs_review")),
        notes=row.get("notes") or (),
        as_far_as=as_far_as,
        end=StatedEnd(row.get("final_progress"), row.get("catastrophic_frame")),
    )


def rows_of_episode(episode_of_row: np.ndarray, episode_index: int) -> slice:
    """The rows of an episode in a table that is ordered by episode.

    Example: rows_of_episode(np.array([0, 0, 2, 2, 2]), 2) == slice(2, 5)
    """
    start, end = np.searchsorted(episode_of_row, [episode_index, episode_index + 1])
    return slice(int(start), int(end))


def labels_of_chunk(
    con: duckdb.DuckDBPyConnection, dataset: str, chunk: int, episode_index: int | None = None
) -> dict[int, dict[str, Label]]:
    """Every label of each episode of a chunk, or of one episode of it, by label run."""
    filters = {"dataset = ?": dataset, "chunk = ?": chunk, "episode_index = ?": episode_index}
    by_episode: dict[int, dict[str, Label]] = {}
    for (episode, label_run), label in _read(con, "segments", filters).items():
        by_episode.setdefault(episode, {})[label_run] = label
    return by_episode


def dataset_gates(
    con: duckdb.DuckDBPyConnection,
    min_confidence: float | None = None,
    min_name_confidence: float | None = None,
) -> dict[str, LabelGate]:
    """How sure labels have to be, by dataset: as asked here, else as the dataset's samples were built."""
    stated_limits = {"min_confidence": min_confidence, "min_name_confidence": min_name_confidence}
    stated_limits = {name: value for name, value in stated_limits.items() if value is not None}
    gates = {}
    for dataset, config in con.execute(
        "SELECT dataset, config FROM build_configs ORDER BY 1"
    ).fetchall():
        # What an earlier version built has no gate of its own
        built = json.loads(config).get("stages", {}).get("samples", {})
        built = {name: built[name] for name in asdict(LabelGate()) if name in built}
        gates[dataset] = LabelGate(**built | stated_limits)
    return gates


# Of episodes e: some shards are of their chunk and split
CUT_FROM = """
WHERE (dataset, e.chunk, (SELECT split FROM splits p WHERE p.dataset = e.dataset AND p.episode_index = e.episode_index))
  IN (SELECT (dataset, chunk, split) FROM shards WHERE list_contains(?, shard))"""


def gate_counts(
    con: duckdb.DuckDBPyConnection, shards: Sequence[str] | None = None
) -> dict[str, GateCounts]:
    """By dataset: how many active labels of usable episodes make no samples, or none of the names
    of their steps.

    shards: only of episodes that these are cut from, in their chunks and splits.
    """
    # A lake of an earlier version does not say which labels have names
    rows = con.execute(
        "SELECT dataset, confidence, COLUMNS('^(needs_review|named)$') FROM episode_labels e SEMI JOIN active_runs "
        f"USING (dataset, episode_index, label_run) {OF_USABLE} {'' if shards is None else CUT_FROM}",
        [] if shards is None else [list(shards)],
    )
    labels = grouped(
        (row["dataset"], (row["confidence"], row.get("named") is not False))
        for row in rows.to_arrow_table().to_pylist()
    )
    gates = dataset_gates(con)
    return {
        dataset: GateCounts(gates.get(dataset, LabelGate()), labels[dataset])
        for dataset in sorted(labels)
    }


def _read(
    con: duckdb.DuckDBPyConnection, relation: str, filters: Mapping[str, Any]
) -> dict[tuple[int, str], Label]:
    """Labels by episode and label run, in that order, out of a relation's rows that fit; filters: None is any value."""
    condition, values = _where(filters)
    answer = con.execute(
        f"SELECT episode_index, label_run, num_planned, COLUMNS('^({SEGMENT_COLUMNS})$') FROM {relation} "
        f"WHERE {condition} ORDER BY episode_index, label_run, segment_index",
        values,
    )
    # A lake of an earlier version, and a release made with it, has not all of the columns
    columns = [name for name, *_ in answer.description or ()][3:]
    segments = grouped(
        ((episode_index, run, num_planned), Segment(**dict(zip(columns, segment, strict=True))))
        for episode_index, run, num_planned, *segment in answer.fetchall()
    )
    return {
        (episode_index, run): Label(of_label, num_planned, label_run=run)
        for (episode_index, run, num_planned), of_label in segments.items()
    }


def _where(filters: Mapping[str, Any]) -> tuple[str, list[Any]]:
    stated_filters = {condition: value for condition, value in filters.items() if value is not None}
    return " AND ".join(stated_filters), [*stated_filters.values()]


def followers(con: duckdb.DuckDBPyConnection, label_run: str) -> set[tuple[str, int]]:
    """Episodes (dataset, episode_index) whose label of a run follows the labels of others."""
    sql = "SELECT DISTINCT dataset, episode_index FROM alignments WHERE label_run = ?"
    return set(con.execute(sql, [label_run]).fetchall())


@dataclass(frozen=True)
class RunFacts:
    """same_as: the task in words, that of several texts which means the same. quality: the score of
    demonstration_quality, None where too few runs show what is usual."""

    same_as: str
    success: bool | None
    quality: float | None
    label_run: str | None


def run_facts(con: duckdb.DuckDBPyConnection) -> dict[tuple[str, int], RunFacts]:
    """By (dataset, episode_index), of all usable episodes."""
    # A lake that is only read may be of a version that measured no demonstrations
    is_measured = has(con, "demonstration_quality")
    sql = RUNS.format(
        quality="q.score" if is_measured else "NULL", measured=MEASURED if is_measured else ""
    )
    return {
        (dataset, episode): RunFacts(*facts)
        for dataset, episode, *facts in con.execute(sql).fetchall()
    }


@dataclass(frozen=True)
class GripperOpening:
    """How open one gripper is at each frame, 0..1; None where nothing is known.

    signal: None in episodes that were measured before grippers were told apart.
    """

    signal: GripperSignal | None
    opening: list[float | None]


def stored_signals(con: duckdb.DuckDBPyConnection, dataset: str) -> list[GripperSignal]:
    """The grippers and hands of a dataset, in the order of `frames.grippers`."""
    return signals_by_dataset(con, dataset).get(dataset, [])


def signals_by_dataset(
    con: duckdb.DuckDBPyConnection, dataset: str | None = None
) -> dict[str, list[GripperSignal]]:
    """The grippers and hands of all datasets that have any, or of one, in order."""
    rows = _dicts(
        con,
        "signals WHERE dataset = coalesce($1, dataset) ORDER BY dataset, signal_index",
        [dataset],
    )
    return grouped((row["dataset"], signal_from_row(row)) for row in rows)


def lags_by_dataset(con: duckdb.DuckDBPyConnection) -> dict[str, list[dict[str, Any]]]:
    """The rows of signal_lags by dataset, in order."""
    rows = _dicts(con, "signal_lags ORDER BY dataset, signal, chunk", [])
    return grouped((row["dataset"], row) for row in rows)


def chunk_lags(con: duckdb.DuckDBPyConnection, dataset: str, chunk: int) -> list[dict[str, Any]]:
    """The rows of signal_lags of one chunk, by signal."""
    return _dicts(
        con, "signal_lags WHERE dataset = ? AND chunk = ? ORDER BY signal", [dataset, chunk]
    )


def _dicts(con: duckdb.DuckDBPyConnection, sql: str, values: list[Any]) -> list[dict[str, Any]]:
    """The rows that a query gives; none in a lake without the tables of signals."""
    if has(con, "signals"):
        return con.execute(f"FROM {sql}", values).to_arrow_table().to_pylist()
    return []


def gripper_openings(
    con: duckdb.DuckDBPyConnection, dataset: str, chunk: int, episode_index: int
) -> list[GripperOpening]:
    """How open the grippers of an episode are, in the order of signals; without those that are not used."""
    # Every camera's rows have the same of these
    grippers = "any_value(grippers)" if has(con, "signals") else "NULL"
    frames = con.execute(
        f"SELECT any_value(gripper), {grippers} FROM frames WHERE dataset = ? AND chunk = ? AND episode_index = ? "
        "GROUP BY frame_index ORDER BY frame_index",
        [dataset, chunk, episode_index],
    ).fetchall()
    return openings_of(stored_signals(con, dataset), frames)


def openings_of(
    signals: Sequence[GripperSignal],
    frames: Sequence[tuple[float | None, Sequence[float | None] | None]],
) -> list[GripperOpening]:
    """The same of what is stored of each frame: `gripper` and `grippers` of the table frames."""
    # An episode may have been measured by an earlier survey, which told others apart
    measured_frames = [
        k for k, (_, of_frame) in enumerate(frames) if of_frame and len(of_frame) == len(signals)
    ]
    curves = [GripperOpening(signal, [None] * len(frames)) for signal in signals]
    for k, curve in product(measured_frames, range(len(signals))):
        curves[curve].opening[k] = (frames[k][1] or [])[curve]
    common_opening = GripperOpening(None, [gripper for gripper, _ in frames])
    return list(filter(_is_measured, curves)) or list(filter(_is_measured, [common_opening]))


def _is_measured(curve: GripperOpening) -> bool:
    return any(value is not None for value in curve.opening)


def coarse_keyframes(
    lake: LakeConnection, dataset: str, episodes: Collection[int], chunk: int | None = None
) -> dict[tuple[int, str], dict[int, str]]:
    """The names of the pictures that every annotator sees, by episode and camera, then by frame.
    One query for all.

    chunk: of the episodes, where they are of one.
    """
    if not episodes:
        return {}
    rows = lake.rows(
        "SELECT episode_index, camera, map_from_entries(list({'k': frame_index, 'v': sha256} ORDER BY frame_index)) "
        "FROM keyframes WHERE dataset = $1 AND list_contains($2, episode_index) AND purpose = 'coarse' "
        "AND ($3::INTEGER IS NULL OR chunk = $3) GROUP BY 1, 2",
        [dataset, sorted(episodes), chunk],
    )
    return {(episode_index, camera): hash_by_frame for episode_index, camera, hash_by_frame in rows}
