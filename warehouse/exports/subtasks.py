"""Segments in the three forms that LeRobot's tools read, and back."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import pyarrow as pa

from annotate.segments import STEP, Segment
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
STAGE_COLUMNS = {
    "names": pa.string(),
    "start_frames": pa.int64(),
    "end_frames": pa.int64(),
    "start_times": pa.float64(),
    "end_times": pa.float64(),
}  # of each of SARM's heads, `sparse` and `dense`
SPARSE_STAGE = "task"


@dataclass(frozen=True)
class SarmStage:
    """A stage as SARM takes it, in frames; `last_frame` is in it."""

    name: str
    first_frame: int
    last_frame: int


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


def sarm_stages(label: ActiveLabel | None) -> list[SarmStage] | None:
    """The stages of a finished run that does every step once, which are its steps.

    None for others: SARM takes each stage to happen exactly once, and the end of a run for the end of its task. Nor are
    there stages without names.
    """
    if label is None or not label.has_names:
        return None
    steps = [s for s in label.segments if s.kind == STEP]
    if not steps or len(steps) != label.num_planned or not _each_done_once(steps):
        return None
    return [SarmStage(s.name, s.start_frame, s.end_frame - 1) for s in steps]


def _each_done_once(steps: Sequence[Segment]) -> bool:
    names, numbers = {s.name for s in steps}, {s.step for s in steps}
    return len(names) == len(numbers) == len(steps) and all(s.completed for s in steps)


def sarm_columns(label: ActiveLabel | None, num_frames: int, fps: float) -> dict[str, list | None]:
    """SARM's columns of an episode: `dense` has the steps, `sparse` the task as one stage; None without stages."""
    dense = sarm_stages(label)
    sparse = None if dense is None else [SarmStage(SPARSE_STAGE, 0, num_frames - 1)]
    return _head_columns("sparse", sparse, fps) | _head_columns("dense", dense, fps)


def _head_columns(head: str, stages: Sequence[SarmStage] | None, fps: float) -> dict[str, list | None]:
    """The columns of one of SARM's two heads."""
    if stages is None:
        return {f"{head}_subtask_{name}": None for name in STAGE_COLUMNS}
    return {
        f"{head}_subtask_names": [s.name for s in stages],
        f"{head}_subtask_start_frames": [s.first_frame for s in stages],
        f"{head}_subtask_end_frames": [s.last_frame for s in stages],
        f"{head}_subtask_start_times": [s.first_frame / fps for s in stages],
        f"{head}_subtask_end_times": [s.last_frame / fps for s in stages],
    }


def sarm_shares(label: ActiveLabel | None, num_frames: int) -> dict[str, list[float]]:
    """By stage [1, share of the episode, where in it the stage begins], to be summed over episodes."""
    shares = {}
    for stage in sarm_stages(label) or ():
        length = stage.last_frame + 1 - stage.first_frame
        shares[stage.name] = [1, length / num_frames, stage.first_frame / num_frames]
    return shares


def add_shares(total: dict[str, list[float]], part: Mapping[str, Sequence[float]]) -> None:
    for name, values in part.items():
        before = total.get(name, [0, 0.0, 0.0])
        total[name] = [a + b for a, b in zip(before, values, strict=True)]


def proportions(total: Mapping[str, Sequence[float]]) -> dict[str, float]:
    """Mean share of each stage, in the order in which stages begin on average; they sum to 1.

    `total`: sums over episodes, as in `sarm_shares`.

    Example: proportions({"place": [2, 1.2, 0.8], "pick": [2, 0.8, 0.0]}) == {"pick": 0.4, "place": 0.6}
    """
    order = sorted(total, key=lambda name: (total[name][2] / total[name][0], name))
    mean_shares = {name: total[name][1] / total[name][0] for name in order}
    whole = sum(mean_shares.values())
    return {name: share / whole for name, share in mean_shares.items()}
