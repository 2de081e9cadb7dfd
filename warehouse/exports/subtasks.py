"""Segments in the three forms that LeRobot's tools read, and back."""

from collections.abc import Mapping, Sequence

import numpy as np
import pyarrow as pa

from warehouse.exports.labels import STEP, Label

MESSAGE = [("role", pa.string()), ("content", pa.string()), ("style", pa.string())]
REST = [("camera", pa.string()), ("tool_calls", pa.list_(pa.string()))]
PERSISTENT = pa.list_(pa.struct([*MESSAGE, ("timestamp", pa.float32()), *REST]))
EVENTS = pa.list_(pa.struct([*MESSAGE, *REST]))
SPANS = pa.list_(
    pa.struct(
        [
            ("name", pa.string()),
            ("start_frame", pa.int64()),
            ("end_frame", pa.int64()),
            ("kind", pa.string()),
            ("completed", pa.bool_()),
            ("step", pa.int16()),
        ]
    )
)
SPARSE_STAGE = "task"


def persistent_rows(label: Label | None, timestamps: np.ndarray) -> list[dict]:
    """A row of `language_persistent` for each segment, which holds until the next; times are those of the rows."""
    return [
        {
            "role": "assistant",
            "content": s.name,
            "style": "subtask",
            "timestamp": float(timestamps[s.start_frame]),
            "camera": None,
            "tool_calls": None,
        }
        for s in (label.spans if label else ())
    ]


def language_columns(label: Label | None, timestamps: np.ndarray) -> tuple[pa.Array, pa.Array]:
    """`language_persistent` (the same list in each row) and `language_events` (none), one row per frame."""
    n = len(timestamps)
    one = pa.array([persistent_rows(label, timestamps)], PERSISTENT)
    none = pa.array([[]], EVENTS)
    first = pa.array(np.zeros(n, np.int64))
    return one.take(first), none.take(first)


def texts(label: Label | None, num_frames: int) -> list[str]:
    """The name of the step under way at each frame; empty where there is none."""
    found = [""] * num_frames
    for s in label.spans if label else ():
        if s.kind == STEP:
            found[s.start_frame : s.end_frame] = [s.name] * (s.end_frame - s.start_frame)
    return found


# SARM


def sarm_stages(label: Label | None) -> list[tuple[str, int, int]] | None:
    """(name, first frame, last frame) of each stage, for a finished run that does every step once.

    None for others: SARM takes each stage to happen exactly once, and the end of a run for the end of its task.
    """
    if label is None:
        return None
    steps = [s for s in label.spans if s.kind == STEP]
    once = len({s.name for s in steps}) == len({s.step for s in steps}) == len(steps)
    whole = steps and once and all(s.completed for s in steps) and len(steps) == label.num_planned
    return [(s.name, s.start_frame, s.end_frame - 1) for s in steps] if whole else None


def sarm_columns(label: Label | None, num_frames: int, fps: float) -> dict[str, list | None]:
    """SARM's columns of an episode: `dense` has the steps, `sparse` the task as one stage."""
    dense = sarm_stages(label)
    sparse = None if dense is None else [(SPARSE_STAGE, 0, num_frames - 1)]
    found: dict[str, list | None] = {}
    for head, stages in (("sparse", sparse), ("dense", dense)):
        found[f"{head}_subtask_names"] = stages and [name for name, _, _ in stages]
        found[f"{head}_subtask_start_frames"] = stages and [first for _, first, _ in stages]
        found[f"{head}_subtask_end_frames"] = stages and [last for _, _, last in stages]
        found[f"{head}_subtask_start_times"] = stages and [first / fps for _, first, _ in stages]
        found[f"{head}_subtask_end_times"] = stages and [last / fps for _, _, last in stages]
    return found


def sarm_shares(label: Label | None, num_frames: int) -> dict[str, list[float]]:
    """By stage [1, share of the episode, where in it the stage begins], to be summed over episodes."""
    return {
        name: [1, (last + 1 - first) / num_frames, first / num_frames] for name, first, last in sarm_stages(label) or []
    }


def add_shares(total: dict[str, list[float]], part: Mapping[str, Sequence[float]]) -> None:
    for name, values in part.items():
        total[name] = [a + b for a, b in zip(total.get(name, [0, 0.0, 0.0]), values, strict=True)]


def proportions(total: Mapping[str, Sequence[float]]) -> dict[str, float]:
    """Mean share of each stage, in the order in which stages begin on average; they sum to 1."""
    names = sorted(total, key=lambda n: (total[n][2] / total[n][0], n))
    means = {n: total[n][1] / total[n][0] for n in names}
    return {n: m / sum(means.values()) for n, m in means.items()}
