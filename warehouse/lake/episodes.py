"""The one reader of episodes: rows of the view `episodes`, with splits and the labels that count."""

from collections.abc import Mapping, Sequence
from dataclasses import fields
from typing import Any

import duckdb

from core.domain.episode import Episode
from core.errors import UserError

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
