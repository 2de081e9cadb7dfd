"""Segments in the three forms that LeRobot's tools read."""

from collections.abc import Iterable, Mapping, Sequence
from itertools import chain
from typing import Any

import pyarrow as pa

from annotate.segments import STEP
from warehouse.exports.labels import ActiveLabel

SEGMENT = pa.struct(
    [
        ("name", pa.string()),
        ("start_frame", pa.int64()),
        ("end_frame", pa.int64()),
        ("kind", pa.string()),
        ("completed", pa.bool_()),
        ("step", pa.int16()),
        ("confidence", pa.float32()),
        ("notes", pa.string()),
        ("named", pa.bool_()),
    ]
)
SPARSE_STAGE = "task"
Stage = tuple[str, int, int]  # name, first frame, last frame, as SARM takes it


def segment_rows(label: ActiveLabel) -> list[dict]:
    """The segments as they are (SEGMENT)."""
    return [{field.name: getattr(segment, field.name) for field in SEGMENT} for segment in label.segments]


def step_names(label: ActiveLabel | None, num_frames: int) -> list[str]:
    """The name of the step under way at each frame; empty where there is none, and where it has no name."""
    names = [""] * num_frames
    for segment in label.segments if label and label.sure_of_names else ():
        if segment.kind == STEP and segment.named:
            names[segment.start_frame : segment.end_frame] = [segment.name] * len(segment)
    return names


# SARM


def why_no_stages(label: ActiveLabel) -> str | None:
    """Why SARM cannot take a label's steps as its stages; None where it can.

    It takes each stage to happen exactly once, and the end of an episode for that of its task.
    """
    steps = [s for s in label.segments if s.kind == STEP]
    if not steps or not label.has_names:
        return "steps without names"
    if min(len({s.name for s in steps}), len({s.step for s in steps})) < len(steps):
        return "a step done twice"
    return None if [s.completed for s in steps] == [True] * label.num_planned else "not finished"


def _stages(label: ActiveLabel | None) -> list[Stage] | None:
    if label is None or why_no_stages(label):
        return None
    return [(s.name, s.start_frame, s.end_frame - 1) for s in label.segments if s.kind == STEP]


def sarm_columns(label: ActiveLabel | None, num_frames: int, fps: float) -> dict[str, tuple[pa.DataType, Any]]:
    """The type and the value of SARM's columns: `dense` has the steps, `sparse` the task as one stage; None without
    stages."""
    dense = _stages(label)
    columns: dict[str, tuple[pa.DataType, Any]] = {}
    for head, stages in (("sparse", dense and [(SPARSE_STAGE, 0, num_frames - 1)]), ("dense", dense)):
        names, first, last = map(list, zip(*stages, strict=True)) if stages else (None, None, None)
        columns |= {
            f"{head}_subtask_names": (pa.list_(pa.string()), names),
            f"{head}_subtask_start_frames": (pa.list_(pa.int64()), first),
            f"{head}_subtask_end_frames": (pa.list_(pa.int64()), last),
            f"{head}_subtask_start_times": (pa.list_(pa.float64()), first and [frame / fps for frame in first]),
            f"{head}_subtask_end_times": (pa.list_(pa.float64()), last and [frame / fps for frame in last]),
        }
    return columns


def sarm_shares(label: ActiveLabel | None, num_frames: int) -> dict[str, list[float]]:
    """By stage [1, share of the episode, where in it the stage begins], to be summed over episodes; empty without."""
    return {
        name: [1, (last + 1 - first) / num_frames, first / num_frames] for name, first, last in _stages(label) or ()
    }


def sum_shares(parts: Iterable[Mapping[str, Sequence[float]]]) -> dict[str, list[float]]:
    total: dict[str, list[float]] = {}
    for name, values in chain.from_iterable(part.items() for part in parts):
        total[name] = [a + b for a, b in zip(total.get(name, [0, 0.0, 0.0]), values, strict=True)]
    return total


def proportions(total: Mapping[str, Sequence[float]]) -> dict[str, float]:
    """Mean share of each stage, in the order in which stages begin on average; they sum to 1.

    `total`: sums over episodes, as in `sarm_shares`.

    Example: proportions({"place": [2, 1.2, 0.8], "pick": [2, 0.8, 0.0]}) == {"pick": 0.4, "place": 0.6}
    """
    order = sorted(total, key=lambda name: (total[name][2] / total[name][0], name))
    mean_shares = {name: total[name][1] / total[name][0] for name in order}
    whole = sum(mean_shares.values())
    return {name: share / whole for name, share in mean_shares.items()}
