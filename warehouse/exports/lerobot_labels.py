"""Labels in the forms that LeRobot's tools read: language columns, names of steps, SARM's stages.

Language columns (lerobot 0.6.1, datasets/language.py) hold what labels and samples say, in its styles.
`language_persistent`: rows that hold until the next one of their style: `subtask`, and, as its own annotator writes
them, `plan` (a numbered list of what is left, where a step begins); `memory` (what is complete by then).
`language_events`: `vqa`, a question about a camera's picture at a frame, with an answer in JSON.
Styles that nothing here fills: motion, task_aug, interjection, trace.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from itertools import chain
from typing import Any

import numpy as np
import pyarrow as pa

from annotate.samples.procvqa import PROGRESS, task_text
from annotate.segments import STEP, completed_steps
from core.names import is_name
from core.tables import TABLES
from warehouse.exports.labels import ActiveLabel
from warehouse.exports.selection import ExportEpisode, Selected

_TEXTS = [pa.field("content", pa.string()), pa.field("style", pa.string())]
SEGMENT_COLUMNS = ("name", "start_frame", "end_frame", "kind", "completed", "step", "confidence", "notes", "named")
SEGMENT = pa.struct([TABLES["segments"].schema.field(name) for name in SEGMENT_COLUMNS])
SPARSE_STAGE = "task"
Stage = tuple[str, int, int]  # name, first frame, last frame, as SARM takes it


def _rows_type(tool_call: pa.DataType, *, timed: bool) -> pa.DataType:
    """A list of rows; `role` and `timestamp` are never null."""
    time = [pa.field("timestamp", pa.float32(), nullable=False)] if timed else []
    rest = [pa.field("camera", pa.string()), pa.field("tool_calls", pa.list_(tool_call))]
    return pa.list_(pa.struct([pa.field("role", pa.string(), nullable=False), *_TEXTS, *time, *rest]))


PERSISTENT, EVENTS = _rows_type(pa.json_(), timed=True), _rows_type(pa.json_(), timed=False)
# Arrow makes no JSON out of Python's values: rows are made with texts in its place, and cast
_PERSISTENT_TEXT, _EVENTS_TEXT = _rows_type(pa.string(), timed=True), _rows_type(pa.string(), timed=False)


Question = tuple[int, str]  # a frame and a camera, of whose picture a sample asks how far the task is


def questions(selected: Selected, dataset: str, chunk: int, cameras: Sequence[str]) -> dict[int, list[Question]]:
    """By episode, the moments and cameras that samples of progress were made of, of the active labels."""
    rows = selected.lake.rows(
        "SELECT DISTINCT s.episode_index, s.frames[-1], s.camera FROM samples s "
        "JOIN active_runs a USING (dataset, episode_index, label_run) WHERE s.dataset = ? AND s.chunk = ? "
        "AND s.family = ? AND s.progress IS NOT NULL AND list_contains(?, s.camera) ORDER BY ALL",
        [dataset, chunk, PROGRESS, list(cameras)],
    )
    found: dict[int, list[Question]] = {}
    for episode, frame, camera in rows:
        found.setdefault(episode, []).append((frame, camera))
    return found


def persistent_rows(label: ActiveLabel | None, timestamps: np.ndarray) -> list[dict[str, Any]]:
    """Rows in order of time, style, of no camera; times are those of frames. None where a step has no name: the row
    before it would hold through it."""
    rows: list[dict[str, Any]] = []
    if label is None or not label.has_names:
        return rows
    remembers = False
    for segment in label.segments:
        plan, memory = _plan_and_memory(label, completed_steps(label.segments, segment.start_frame - 1))
        # What was done and is undone must not be remembered on
        if memory is None and remembers:
            memory = "Nothing is done any more."
        remembers = remembers or memory is not None
        texts = {"memory": memory, "plan": plan, "subtask": segment.name}
        common = {"timestamp": float(timestamps[segment.start_frame]), "tool_calls": None}
        for style, text in texts.items():
            rows += [{"role": "assistant", "content": text, "style": style, **common}] if text is not None else []
    return rows


def _plan_and_memory(label: ActiveLabel, done: set[int]) -> tuple[str | None, str | None]:
    """What is left of the planned steps, and what is complete; None where nothing is, or a step has no name."""
    if not all(map(is_name, label.plan)):
        return None, None
    left = [name for step, name in enumerate(label.plan) if step not in done]
    names = "; ".join(label.plan[step] for step in sorted(done) if step < len(label.plan))
    plan = "\n".join(f"{number}. {name}" for number, name in enumerate(left, 1))
    return plan or None, f"Done so far: {names}." if done else None


def _event_rows(e: ExportEpisode, label: ActiveLabel, asked: Sequence[Question]) -> dict[int, list[dict[str, Any]]]:
    """Rows by frame; at most one question for each frame and camera."""
    rows: dict[int, list[dict[str, Any]]] = {}
    task = task_text(e.task or "")
    for frame, camera in asked:
        value = round(float(label.progress[frame]), 3)
        answer = json.dumps({"attribute": "progress", "label": task, "value": value}, ensure_ascii=False)
        question = f"How much of the task is done by now, from 0 to 1? The task: {task}"
        rows.setdefault(frame, []).extend(
            {"role": role, "content": text, "style": "vqa", "camera": camera, "tool_calls": None}
            for role, text in (("assistant", answer), ("user", question))
        )
    return rows


def language_columns(
    e: ExportEpisode, label: ActiveLabel | None, timestamps: np.ndarray, asked: Sequence[Question]
) -> tuple[pa.Array, pa.Array]:
    """`language_persistent` (the same list in each row) and `language_events`, one row per frame."""
    one = pa.array([persistent_rows(label, timestamps)], _PERSISTENT_TEXT).cast(PERSISTENT)
    events = _event_rows(e, label, asked) if label is not None else {}
    by_frame = [events.get(frame, []) for frame in range(len(timestamps))]
    return one.take(pa.array(np.zeros(len(timestamps), np.int64))), pa.array(by_frame, _EVENTS_TEXT).cast(EVENTS)


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
