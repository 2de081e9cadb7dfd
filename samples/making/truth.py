"""What only the simulators know, in tables beside the datasets. The terms are explained in `samples/README.md`."""

from collections.abc import Iterator, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from .runs import Array, Run, feature_values

MIN_IDLE_FRAMES = 9  # sim_short: a commanded stillness at least this long is a stall or a stop, not a turning point
SHORT_STEPS = ("reach", "contact", "move")  # phases of a sim_short run that are steps of its task

INDEX = pa.int64()
TEXT = pa.string()
FLAG = pa.bool_()
FLOAT = pa.float32()
TRUTH_EPISODES = pa.schema(
    {
        "episode_index": INDEX,
        "task": TEXT,
        "env": TEXT,
        "policy": TEXT,
        "success": FLAG,
        "start_state": TEXT,
        "planned_steps": pa.list_(TEXT),
    }
)
TRUTH_SEGMENTS = pa.schema(
    {
        "episode_index": INDEX,
        "segment_index": INDEX,
        "name": TEXT,
        "text": TEXT,
        "kind": TEXT,
        "start_frame": INDEX,
        "end_frame": INDEX,
        "completed": FLAG,
        "outcome": TEXT,
    }
)
TRUTH_FRAMES = pa.schema(
    {
        "episode_index": INDEX,
        "frame_index": INDEX,
        "true_progress": FLOAT,
        "success": FLAG,
        "idle": FLAG,
    }
)


def planned_steps(runs: Sequence[Run]) -> list[list[str]]:
    """Per run, the texts of all steps that its task needs, in order, reached or not.

    sim_long names them. A task of sim_short needs reach, contact and move, in the words of its own runs; all runs of
    one task get the same plan, although contact has no segment of its own where it took less than two frames; where it
    did in all of them, it is no step.
    """
    words = {
        (run.record["env"], s["name"]): s.get("text")
        for run in runs
        for s in run.record["segments"]
    }
    return [
        run.record.get("planned_steps")
        or [
            words[run.record["env"], name]
            for name in SHORT_STEPS
            if (run.record["env"], name) in words
        ]
        for run in runs
    ]


def short_ending(name: str, following: str | None) -> tuple[str, bool, str]:
    """Kind, completed and outcome of a sim_short phase, in the terms of sim_long, by what came after it."""
    if name == "hold":
        return "done", True, "done"
    if name == "stop":
        return "idle", False, "idle"
    outcome = {"miss": "missed", "stop": "unfinished", None: "unfinished"}.get(
        following, "completed"
    )
    return "step", outcome == "completed", outcome


def truth_segments(run: Run) -> Iterator[dict[str, Any]]:
    segments = run.record["segments"]
    for i, s in enumerate(segments):
        if "kind" in s:
            kind = s["kind"]
            completed = s["completed"]
            outcome = s["outcome"]
        else:
            following = segments[i + 1]["name"] if i + 1 < len(segments) else None
            kind, completed, outcome = short_ending(s["name"], following)
        yield {
            "episode_index": run.index,
            "segment_index": i,
            "name": s["name"],
            "text": s.get("text", s["name"]),
            "kind": kind,
            "start_frame": s["start"],
            "end_frame": s["end"],
            "completed": completed,
            "outcome": outcome,
        }


def idle_frames(run: Run) -> Array:
    """Where the arm is told to stand still before the task is done: stalls, stops, pauses and given-up ends."""
    if "kind" in run.rows.column_names:
        return np.array(run.rows["kind"].to_pylist()) == "idle"
    still = (feature_values(run.rows, "action")[:, :3] == 0).all(1)
    lengths = [(value, len(list(group))) for value, group in groupby(still)]
    idle = np.concatenate([np.full(n, value and n >= MIN_IDLE_FRAMES) for value, n in lengths])
    return idle & ~np.array(run.rows["sim.success"].to_pylist())


def truth_frames(run: Run) -> pa.Table:
    columns = [
        pa.array([run.index] * run.num_frames, INDEX),
        run.rows["frame_index"],
        run.rows["true_progress"],
        run.rows["sim.success"],
        pa.array(idle_frames(run), FLAG),
    ]
    return pa.table(columns, schema=TRUTH_FRAMES)


def write_truth(runs: Sequence[Run], folder: Path) -> None:
    """Three tables of what only the simulator knows, by `episode_index` (and `frame_index`) of the dataset."""
    folder.mkdir(parents=True)
    same = ("task", "env", "policy", "success")
    episodes = [
        {"episode_index": run.index, "start_state": run.start_state, "planned_steps": steps}
        | {key: run.record[key] for key in same}
        for run, steps in zip(runs, planned_steps(runs), strict=True)
    ]
    segments = [s for run in runs for s in truth_segments(run)]
    tables = {
        "episodes": pa.Table.from_pylist(episodes, TRUTH_EPISODES),
        "segments": pa.Table.from_pylist(segments, TRUTH_SEGMENTS),
        "frames": pa.concat_tables([truth_frames(run) for run in runs]),
    }
    for name, table in tables.items():
        pq.write_table(table, folder / f"{name}.parquet", compression="zstd")
