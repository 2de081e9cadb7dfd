"""Tiny rows for the tests of the lake, and a writer that other processes can run."""

import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from datetime import timedelta
from itertools import product
from typing import Any

import duckdb
import pyarrow as pa

from core.paths import Workspace
from core.tables import TABLES
from warehouse.lake import Lake, StageRun, corrections
from warehouse.lake.corrections import SAID_LATER, parsed
from warehouse.lake.lake import forget_lakes
from warehouse.lake.sql import answer

RUN = StageRun("frames", "a", 0, "", "in", "frames-1", 0, "out", 0.0)


# It takes seconds, and ends by itself: longer than the limits that tests set
SLOW = "SELECT count(*) FROM range(100000) a, range(40000) b WHERE a.range * b.range % 7 = 3"


@contextmanager
def opened(space: Workspace, read_only: bool = False) -> Iterator[Lake]:
    """The lake of a workspace, closed afterwards."""
    lake = Lake(space, read_only=read_only)
    try:
        yield lake
    finally:
        lake.con.close()


def put_rows(lake: Lake, **rows: Sequence[dict[str, Any]]) -> None:
    """Rows, by table."""
    lake.upsert("rows", **{name: TABLES[name].rows([*of_table]) for name, of_table in rows.items()})


def change(space: Workspace, sql: str, *values: object) -> None:
    """A statement in the lake of a workspace."""
    with opened(space) as lake:
        lake.con.execute(sql, list(values))


def query(con: duckdb.DuckDBPyConnection, sql: str) -> pa.Table:
    """The rows of a user's query, in this process."""
    return answer(con, sql).read_all()


def stage_run(**changes: Any) -> StageRun:
    return replace(RUN, **changes)


def frames(
    dataset: str = "a",
    chunk: int = 0,
    episodes: Sequence[int] = (0,),
    n: int = 4,
    value: float = 0.1,
):
    """n frames of one camera for each episode; `value` is their visual change."""
    rows = [
        {
            "dataset": dataset,
            "episode_index": e,
            "camera": "front",
            "frame_index": k,
            "chunk": chunk,
            "timestamp_s": k / 10,
            "visual_change": value,
            "phash": 2**63 + k,
            "is_black": False,
        }
        for e, k in product(episodes, range(n))
    ]
    return TABLES["frames"].rows(rows)


def facts(
    dataset: str = "a", chunk: int = 0, episodes: Sequence[int] = (0,), **changes: Any
) -> pa.Table:
    rows = [
        {
            "dataset": dataset,
            "episode_index": e,
            "chunk": chunk,
            "source_id": f"episode_{e}",
            "task": "push",
            "tasks": ["push"],
            "num_rows": 10,
            "fps": 5.0,
            "cameras": ["front"],
            "videos": [{"camera": "front", "uri": "v.mp4", "start_frame": 0}],
        }
        | changes
        for e in episodes
    ]
    return TABLES["episode_facts"].rows(rows)


def segments(
    dataset: str = "a", chunk: int = 0, label_run: str = "r1", name: str = "reach", episodes=(0,)
) -> pa.Table:
    base_row = {
        "dataset": dataset,
        "chunk": chunk,
        "label_run": label_run,
        "kind": "step",
        "completed": True,
    }
    rows = [
        base_row
        | {
            "episode_index": e,
            "segment_index": i,
            "name": name,
            "start_frame": 5 * i,
            "end_frame": 5 * i + 5,
        }
        for e, i in product(episodes, range(2))
    ]
    return TABLES["segments"].rows(rows)


STEPS = [
    {"name": "Reach for the cube", "start_frame": 0, "end_frame": 11},
    {"name": "Put it on the plate", "start_frame": 11, "end_frame": 30},
]


def say(
    lake: Lake, segments: Any = STEPS, episode: int = 2, dataset: str = "tiny", **extra: Any
) -> dict[str, Any]:
    """Save a correction as somebody does who has seen everything that was said so far."""
    label = {name: extra.pop(name) for name in ("plan", *SAID_LATER) if name in extra}
    seen_versions = {
        "author": "ada",
        "base_label_run": None,
        "base_content_hash": corrections.episode_facts(lake, dataset, episode)["content_hash"],
        "follows": corrections.newest_id(lake, dataset, episode),
    }
    return corrections.save(
        lake, dataset, episode, parsed({"segments": segments} | label), **seen_versions | extra
    )


def restate(lake: Lake, change: str) -> None:
    """Do to the statements what no program does, such as "UPDATE {} SET author = 'me'"."""
    with sqlite3.connect(lake.workspace.statements) as statements:
        statements.execute(change.format("proccorpus_statements"))
    lake.con.execute(change.format("words.main.statements"))


def an_hour_ago(lake: Lake) -> None:
    """Let all that was said be said an hour earlier."""
    for number, time in lake.rows("SELECT number, created_at FROM statements"):
        former_time = (time - timedelta(hours=1)).isoformat()
        restate(lake, f"UPDATE {{}} SET created_at = '{former_time}' WHERE number = {number}")
    forget_lakes()


def history(lake: Lake, dataset: str, episode: int) -> list[dict[str, Any]]:
    """Every row that was said of an episode's label, oldest first."""
    of_episode = "WHERE dataset = ? AND episode_index = ?"
    return lake.dicts(
        f"FROM corrections {of_episode} ORDER BY created_at, correction_id", [dataset, episode]
    )


def findings(*rows: tuple[int | None, int | None, str, str, str], dataset: str = "a") -> pa.Table:
    """(episode, chunk, stage, reason, severity) each"""
    names = ("episode_index", "chunk", "stage", "reason", "severity")
    return TABLES["findings"].rows(
        [
            {"dataset": dataset, "detail": f"{r[3]} it is"} | dict(zip(names, r, strict=True))
            for r in rows
        ]
    )
