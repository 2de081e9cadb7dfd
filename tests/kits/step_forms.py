"""Steps written into a LeRobot dataset as each tool writes them: what tools of the field read and
write, byte for byte.

`SPANS` are the steps of episode 0 of a dataset with 10 frames per second and 24 frames or more.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from tests.kits.lerobot_writer import (
    declare,
    edit_parquet,
    v2_data,
    v3_data,
    v3_meta,
    write_json_lines,
    write_parquet,
)

Span = tuple[str, int, int]
SPANS: tuple[Span, ...] = (
    ("reach the cup", 2, 8),
    ("grasp the cup", 8, 14),
    ("put it on the plate", 14, 21),
)
MESSAGE = [("role", pa.string()), ("content", pa.string()), ("style", pa.string())]
PERSISTENT = pa.list_(
    pa.struct(
        [
            *MESSAGE,
            ("timestamp", pa.float32()),
            ("camera", pa.string()),
            ("tool_calls", pa.list_(pa.string())),
        ]
    )
)


def add_column(
    path: Path, name: str, cells: Sequence[Any], type_: pa.DataType, dtype: str, shape: list[int]
) -> None:
    """A column of a data file, declared in info.json as LeRobot's tools do."""
    edit_parquet(path, **{name: pa.array(list(cells), type_)})
    root = next(folder for folder in path.parents if (folder / "meta").is_dir())
    declare(root, {name: {"dtype": dtype, "shape": shape, "names": None}})


def names_of_frames(spans: Sequence[Span], num_frames: int, none: str) -> list[str]:
    names = [none] * num_frames
    for name, start, end in spans:
        names[start:end] = [name] * (end - start)
    return names


def data_file(root: Path) -> Path:
    v2 = v2_data(root, 0)
    if v2.exists():
        return v2
    return v3_data(root, 0)


def episode_lines(root: Path, change: Callable[[dict[str, Any]], Mapping[str, Any]]) -> None:
    """Add what `change` gives to each line of meta/episodes.jsonl, of v2."""
    path = root / "meta/episodes.jsonl"
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    write_json_lines(path, [row | dict(change(row)) for row in rows])


# One function per form: it writes some spans of episode 0 into a dataset


def subtask_index(root: Path, spans: Sequence[Span] = SPANS) -> None:
    """LeRobot 0.4.4 to 0.5.1: an index per frame, the texts as pandas' index of a table."""
    path = data_file(root)
    names = names_of_frames(spans, pq.read_metadata(path).num_rows, "")
    texts = [name for name, _, _ in spans]
    cells = [texts.index(name) if name else -1 for name in names]
    add_column(path, "subtask_index", cells, pa.int64(), "int64", [1])
    write_parquet(
        root / "meta/subtasks.parquet",
        {"subtask_index": range(len(texts)), "__index_level_0__": texts},
    )


def language(root: Path, spans: Sequence[Span] = SPANS) -> None:
    """LeRobot 0.6: the same list in every row; no text of its own ends the last step."""
    path = data_file(root)
    times = pq.read_table(path, columns=["timestamp"])["timestamp"].to_pylist()
    texts = [(name, times[start]) for name, start, _ in spans]
    if spans[-1][2] < len(times):
        texts.append(("Done", times[spans[-1][2]]))
    rows = [
        _atom("assistant", f"{len(texts)} steps", "plan", times[0]),
        _atom("user", "now", "task_aug", times[0]),
    ]
    rows += [
        _atom("assistant", name, "subtask", time_s) | {"camera": None} for name, time_s in texts
    ]
    add_column(path, "language_persistent", [rows] * len(times), PERSISTENT, "language", [1])


def _atom(role: str, content: str, style: str, timestamp: float) -> dict[str, Any]:
    return {
        "role": role,
        "content": content,
        "style": style,
        "timestamp": timestamp,
        "tool_calls": None,
    }


def visualizer(root: Path, spans: Sequence[Span] = SPANS, fps: float = 10) -> None:
    """The dataset visualizer's file, version 2: no ends, and atoms of other styles among those of
    steps."""
    atoms = [_atom("assistant", "see the cup", "memory", 0.0)]
    atoms += [
        _atom("assistant", name, "subtask", start / fps) for name, start, _ in reversed(spans)
    ]
    atoms.append(_atom("assistant", "done", "subtask", spans[-1][2] / fps))
    styles = {
        "persistent_styles": ["memory", "plan", "subtask"],
        "event_styles": ["interjection", "vqa"],
    }
    _write_visualizer(root, {"version": 2, "schema": styles, "episodes": {"0": {"atoms": atoms}}})


def visualizer_v1(root: Path, spans: Sequence[Span] = SPANS, fps: float = 10) -> None:
    """Version 1, of the Space lerobot/annotate: labels with start and end."""
    subtasks = [
        {"label": name, "start": start / fps, "end": end / fps} for name, start, end in spans
    ]
    _write_visualizer(
        root, {"version": 1, "episodes": {"0": {"subtasks": subtasks, "high_levels": []}}}
    )


def _write_visualizer(root: Path, content: Mapping[str, Any]) -> None:
    (root / "meta/lerobot_annotations.json").write_text(json.dumps(content, indent=2))


def action_config(root: Path, spans: Sequence[Span] = SPANS) -> None:
    """LingBot-VA: a list of spans, of v2; a frame's end is exclusive."""
    config = [
        {"start_frame": start, "end_frame": end, "action_text": name} for name, start, end in spans
    ]
    episode_lines(root, lambda row: {"action_config": config if row["episode_index"] == 0 else []})


def robomind(root: Path, spans: Sequence[Span] = SPANS) -> None:
    """RoboMIND by any4lerobot: an object in v3's table; frames are names of pictures, and last ones
    are included."""
    steps = [
        {
            "step_description": name,
            "start_frame": f"camera_top_{start:04d}.jpg",
            "end_frame": f"camera_top_{end - 1:04d}.jpg",
        }
        for name, start, end in spans
    ]
    path = v3_meta(root)
    num_episodes = pq.read_metadata(path).num_rows
    described = {"task_summary": "put the cup on the plate", "steps": steps}
    cells = [described] + [{"task_summary": None, "steps": None}] * (num_episodes - 1)
    edit_parquet(path, action_config=pa.array(cells))


def robocoin(root: Path, spans: Sequence[Span] = SPANS) -> None:
    """RoboCOIN: five slots per frame, padded with the index of "null"; "End" after the last
    step."""
    path = data_file(root)
    num_frames = pq.read_metadata(path).num_rows
    names = names_of_frames(spans, num_frames, "null")
    names[spans[-1][2] :] = ["End"] * (num_frames - spans[-1][2])
    texts = ["null", "End", *(name for name, _, _ in spans)]
    cells = [[texts.index(name), 0, 0, 0, 0] for name in names]
    add_column(path, "subtask_annotation", cells, pa.list_(pa.int32(), 5), "int32", [5])
    rows = [{"subtask_index": k, "subtask": text} for k, text in enumerate(texts)]
    write_json_lines(root / "annotations/subtask_annotations.jsonl", rows)


def sarm(root: Path, spans: Sequence[Span] = SPANS, head: str = "dense_") -> None:
    """SARM's lists in v3's table: the end is the next one's start; an optional stage that is absent
    ends before it."""
    names = [name for name, _, _ in spans]
    starts = [start for _, start, _ in spans]
    ends = [end for _, _, end in spans[:-1]] + [spans[-1][2] - 1]
    # Left out by this run, between the first stage and the second
    names.insert(1, "wipe the cup")
    starts.insert(1, starts[1])
    ends.insert(1, starts[1] - 1)
    columns = {"names": names, "start_frames": starts, "end_frames": ends}
    nothing = [None] * (pq.read_metadata(v3_meta(root)).num_rows - 1)
    edit_parquet(
        v3_meta(root),
        **{f"{head}subtask_{name}": pa.array([c, *nothing]) for name, c in columns.items()},
    )


def sarm_times(root: Path, spans: Sequence[Span] = SPANS, fps: float = 10) -> None:
    """The same by times alone; an absent stage ends a frame before it begins, or where it
    begins."""
    absent = [
        ("wipe the cup", spans[1][1], spans[1][1] - 1),
        ("rinse the cup", spans[1][1], spans[1][1]),
    ]
    stages = [spans[0], *absent, *spans[1:]]
    columns = {
        "names": [name for name, _, _ in stages],
        "start_times": [start / fps for _, start, _ in stages],
        "end_times": [end / fps for _, _, end in stages],
    }
    nothing = [None] * (pq.read_metadata(v3_meta(root)).num_rows - 1)
    edit_parquet(
        v3_meta(root),
        **{f"sparse_subtask_{name}": pa.array([c, *nothing]) for name, c in columns.items()},
    )


def annotation(root: Path, spans: Sequence[Span] = SPANS) -> None:
    """GR00T: indices into meta/tasks.jsonl; what is the same in all rows, and the validity, are no
    steps."""
    path = data_file(root)
    num_frames = pq.read_metadata(path).num_rows
    lines = [json.loads(line) for line in (root / "meta/tasks.jsonl").read_text().splitlines()]
    first = len(lines)
    texts = [*(name for name, _, _ in spans), "idle", "valid", "invalid"]
    lines += [{"task_index": first + k, "task": text} for k, text in enumerate(texts)]
    write_json_lines(root / "meta/tasks.jsonl", lines)

    names = names_of_frames(spans, num_frames, "idle")
    halves = [spans[0][0]] * (num_frames // 2) + [spans[-1][0]] * (num_frames - num_frames // 2)
    validity = ["valid"] * (num_frames - 3) + ["invalid", "valid", "invalid"]
    columns = {"fine_action": names, "coarse_action": halves, "validity": validity}
    for column, values in columns.items():
        cells = [first + texts.index(value) for value in values]
        add_column(path, f"annotation.human.{column}", cells, pa.int64(), "int64", [1])
    add_column(
        path, "annotation.human.action.task_description", [0] * num_frames, pa.int64(), "int64", [1]
    )


V2_FORMS: Mapping[str, Callable[..., None]] = {
    "subtask_index": subtask_index,
    "language": language,
    "visualizer": visualizer,
    "visualizer_v1": visualizer_v1,
    "action_config": action_config,
    "robocoin": robocoin,
    "annotation": annotation,
}
V3_FORMS: Mapping[str, Callable[..., None]] = {
    "subtask_index": subtask_index,
    "language": language,
    "visualizer": visualizer,
    "robomind": robomind,
    "sarm": sarm,
    "sarm_times": sarm_times,
}
