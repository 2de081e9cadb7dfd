"""Read from the lake the runs that are compared with others of their task."""

from dataclasses import dataclass

import duckdb

from warehouse.lake.connection import has

RUNS = """
SELECT e.dataset, e.episode_index, coalesce(j.same_as, e.task, ''), e.success, {quality}, a.label_run
FROM episodes e
LEFT JOIN current_joined_tasks j ON j.dataset = e.dataset AND j.task = e.task
LEFT JOIN active_runs a ON a.dataset = e.dataset AND a.episode_index = e.episode_index
{measured}
WHERE e.status = 'ok'"""
MEASURED = "LEFT JOIN demonstration_quality q ON q.dataset = e.dataset AND q.episode_index = e.episode_index"


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
    sql = RUNS.format(quality="q.score" if is_measured else "NULL", measured=MEASURED if is_measured else "")
    return {(dataset, episode): RunFacts(*facts) for dataset, episode, *facts in con.execute(sql).fetchall()}
