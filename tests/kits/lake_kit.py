"""Tiny rows for the tests of the lake, and a writer that other processes can run."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import duckdb
import pyarrow as pa

from core.tables import TABLES
from warehouse.lake import StageRun
from warehouse.lake.sql import answer

RUN = StageRun("frames", "a", 0, "", "in", "frames-1", 0, "out", 0.0)


FOREVER = "SELECT count(*) FROM range(100000000) a, range(100000) b WHERE a.range * b.range % 7 = 3"


def query(con: duckdb.DuckDBPyConnection, sql: str) -> pa.Table:
    """The rows of a user's query, in this process."""
    return answer(con, sql).read_all()


def stage_run(**changes: Any) -> StageRun:
    return replace(RUN, **changes)


def frames(dataset: str = "a", chunk: int = 0, episodes: Sequence[int] = (0,), n: int = 4, value: float = 0.1):
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
        for e in episodes
        for k in range(n)
    ]
    return TABLES["frames"].rows(rows)


def facts(dataset: str = "a", chunk: int = 0, episodes: Sequence[int] = (0,), **changes: Any) -> pa.Table:
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


def segments(dataset: str = "a", chunk: int = 0, label_run: str = "r1", name: str = "reach", episodes=(0,)) -> pa.Table:
    where = {"dataset": dataset, "chunk": chunk, "label_run": label_run, "kind": "step", "completed": True}
    rows = [
        where | {"episode_index": e, "segment_index": i, "name": name, "start_frame": 5 * i, "end_frame": 5 * i + 5}
        for e in episodes
        for i in range(2)
    ]
    return TABLES["segments"].rows(rows)


def findings(*rows: tuple[int | None, int | None, str, str, str], dataset: str = "a") -> pa.Table:
    """(episode, chunk, stage, reason, severity) each"""
    names = ("episode_index", "chunk", "stage", "reason", "severity")
    return TABLES["findings"].rows(
        [{"dataset": dataset, "detail": f"{r[3]} it is"} | dict(zip(names, r, strict=True)) for r in rows]
    )
