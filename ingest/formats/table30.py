"""Adapter for RoboChallenge Table30 as its makers publish it, unpacked; the second edition (Table30 v2) too.

`<task>/meta/task_info.json` names robot, prompt and frame rate. `<task>/data/episode_<n>/` has `videos/<camera>.mp4`,
`meta/episode_meta.json`, and a line of JSON for each frame in `states/states.jsonl`, or for two arms in
`left_states.jsonl` and `right_states.jsonl`. A root that is itself one task's folder is read as well.
"""

import re
from array import array
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np

from ingest.episode import Episode, EpisodeRecord, Finding, Listing, RowsError
from ingest.formats.cameras import in_order
from ingest.formats.proprio import joined, signals
from ingest.formats.side_files import parse_json, read_json
from ingest.formats.whole_videos import frames_of, videos_of
from ingest.media.video import LFS_MARK
from ingest.sources.files import Source

TASK_INFO = "meta/task_info.json"
EPISODE = r"^(?:(.+)/)?data/(episode_\d+)/"  # folder of the task, name
VIDEO_FILE = re.compile(EPISODE + r"videos/([^/]+)\.mp4$")
STATES_FILE = re.compile(EPISODE + r"states/((?:left_|right_)?states)\.jsonl$")
META_FILE = re.compile(EPISODE + r"meta/episode_meta\.json$")
FPS = 30.0
FIRST_CAMERAS = ("global_realsense_rgb", "main_realsense_rgb", "cam_high_rgb", "cam_global_rgb")
WRIST = ("arm_", "handeye", "wrist")
JOINTS = ("qpos", "joint_positions")  # ALOHA has both: of the arm, and of the one that leads it
GRIPPER = ("gripper_width", "gripper")  # Franka has both: metres, and two buttons
UR5_CLOSED = 255.0  # its `gripper` is 0 when open
MAX_BYTES, MAX_LINE_BYTES = 1 << 30, 1 << 20  # a frame has 1 kB


class Task(NamedTuple):
    """What a task's files say; empty where they do not."""

    tasks: tuple[str, ...]
    fps: float
    robot: str


def recognises(source: Source) -> bool:
    known = (VIDEO_FILE, STATES_FILE, META_FILE)
    return any(any(p.match(u) for p in known) or f"/{u}".endswith(f"/{TASK_INFO}") for u in source.files)


def list_episodes(source: Source) -> Listing:
    findings: list[Finding] = []
    videos: dict[tuple[str, str], dict[str, str]] = defaultdict(dict)  # by task folder and name of the episode
    states: dict[tuple[str, str], dict[str, str]] = defaultdict(dict)
    keys = set()
    for uri in source.files:
        for pattern, files in ((VIDEO_FILE, videos), (STATES_FILE, states), (META_FILE, None)):
            if m := pattern.match(uri):
                keys.add((m[1] or "", m[2]))
                if files is not None:
                    files[m[1] or "", m[2]][m[3]] = uri
    usual: dict[str, set[str]] = defaultdict(set)  # cameras of a task, which is of one robot
    for (task, _), found in videos.items():
        usual[task].update(found)
    order = in_order(set().union(*usual.values()), source.config.cameras, FIRST_CAMERAS, WRIST)
    infos = {task: _task_info(source, task, findings) for task in sorted({task for task, _ in keys})}
    records = []
    for index, (task, name) in enumerate(sorted(keys, key=lambda k: _join(*k))):
        found = videos_of(videos.get((task, name), {}), [c for c in order if c in usual[task]], index, findings)
        rows = _states_uris(states.get((task, name), {}))
        num_rows, meta = _length(source, task, name, rows, index, findings)
        if not infos[task].tasks:
            findings.append(Finding("no_task", f"no prompt in {_join(task, TASK_INFO)}", "warning", index))
        success, group = meta.get(source.config.success_field), meta.get(source.config.group_field or "")
        records.append(
            EpisodeRecord(
                episode_index=index,
                source_id=_join(task, name),
                fps=source.config.fps or infos[task].fps,
                task=next(iter(infos[task].tasks), None),
                tasks=infos[task].tasks,
                num_rows=num_rows,
                data_uri=rows[0] if rows else None,
                videos=found,
                success=success if isinstance(success, bool) else None,
                group=_join(task, name) if group in (None, "") else str(group),
                source_stamp=source.stamp([*(v.uri for v in found), *rows], num_rows),
            )
        )
    if not records:
        findings.append(Finding("no_episodes", "no folder data/episode_<n> below the task's folder"))
    robots = sorted({i.robot for i in infos.values() if i.robot})
    return Listing(
        "table30",
        source.config.fps or (records[0].fps if records else None),
        source.config.robot or ", ".join(robots) or None,
        tuple(order),
        tuple(records),
        tuple(findings),
        numbered=False,
    )


def _join(folder: str, name: str) -> str:
    return f"{folder}/{name}" if folder else name


def _task_info(source: Source, task: str, findings: list[Finding]) -> Task:
    texts, info = [], {}
    for name in (TASK_INFO, "task_desc.json"):
        uri = _join(task, name)
        if uri not in source.files:
            if name == TASK_INFO:
                findings.append(Finding("no_metadata", f"there is no {uri}", "warning", file=uri))
            continue
        try:
            found = read_json(source, uri)
        except RowsError as e:
            findings.append(Finding(e.reason, str(e), "warning", file=uri))
            continue
        found = found if isinstance(found, dict) else {}
        described = found.get("task_desc") if name == TASK_INFO else found
        texts.append(described.get("prompt") if isinstance(described, dict) else None)
        info = info or found
    video = info.get("video_info")
    fps = video.get("fps") if isinstance(video, dict) else None
    robot = info.get("robot_id")
    return Task(
        tuple(dict.fromkeys(t.strip() for t in texts if isinstance(t, str) and t.strip())),
        float(fps) if isinstance(fps, int | float) and 0 < fps < 1000 else FPS,
        robot if isinstance(robot, str) else "",
    )


def _states_uris(states: dict[str, str]) -> list[str]:
    """One arm's file, or left and right; empty when there is none, or only one of two."""
    if "states" in states:
        return [states["states"]]
    return [states[n] for n in ("left_states", "right_states")] if len(states) == 2 else []


def _length(
    source: Source, task: str, name: str, rows: list[str], index: int, findings: list[Finding]
) -> tuple[int | None, dict[str, Any]]:
    """Lines of the states (of a remote source what the metadata says), and the episode's metadata."""
    uri, meta = _join(task, f"data/{name}/meta/episode_meta.json"), {}
    if uri in source.files:
        try:
            found = read_json(source, uri)
            meta = found if isinstance(found, dict) else {}
        except RowsError as e:
            findings.append(Finding(e.reason, str(e), "warning", index, None, uri))
    frames = meta.get("frames")
    stated = frames if type(frames) is int and 0 <= frames < 1 << 31 else None
    if not rows:
        findings.append(Finding("no_data", "no states of the arm, or of one of two arms", "unusable", index))
        return stated, meta
    if source.config.is_remote:
        return stated, meta
    try:
        num_rows = sum(1 for _ in _lines(source, rows[0]))
    except RowsError as e:
        findings.append(Finding(e.reason, str(e), "unusable", index, None, rows[0]))
        return stated, meta
    if num_rows == 0:
        findings.append(Finding("no_data", "its states have no line", "unusable", index, None, rows[0]))
    if stated not in (None, num_rows):
        detail = f"metadata says {stated} frames, its states are {num_rows}"
        findings.append(Finding("length_differs", detail, "warning", index, None, uri))
    return num_rows, meta


# Rows


def read_episode(source: Source, record: EpisodeRecord) -> Episode:
    """Joints and gripper opening of the arm, or of the left and the right one; raises RowsError."""
    if record.data_uri is None:
        raise RowsError("no states of the arm, or of one of two arms", "no_data")
    match = STATES_FILE.match(record.data_uri)
    robot = _task_info(source, match[1] or "", []).robot if match else ""
    right = record.data_uri.replace("/left_states.", "/right_states.")
    arms = {"": record.data_uri} if right == record.data_uri else {"left.": record.data_uri, "right.": right}
    parts, names = [], []
    columns: dict[str, np.ndarray] = {}
    for side, uri in reversed(arms.items()):  # so that the times are the first arm's
        columns = _columns(source, uri)
        part, named = _arm(columns, "ur5" in robot.lower())
        parts, names = [*part, *parts], [*(side + n for n in named), *names]
    num_rows = len(next(iter(columns.values())))
    record = replace(record, num_rows=num_rows)
    rest, gripper = signals(joined(parts), None, source.config.gripper, names)
    return Episode(record, rest, gripper, _seconds(columns.get("timestamp")), frames_of(source, record))


def _arm(columns: dict[str, np.ndarray], ur5: bool) -> tuple[list[np.ndarray], list[str]]:
    """Joints, then the gripper's opening, of one arm, and a name for each dimension."""
    parts, names = [], []
    joints = next((k for k in JOINTS if k in columns), None)
    if joints:
        parts.append(columns[joints])
        names += [f"joint.{k}" for k in range(columns[joints].shape[1])]
    grip = next((k for k in GRIPPER if k in columns and columns[k].shape[1] == 1), None)
    if grip:
        parts.append(UR5_CLOSED - columns[grip] if ur5 and grip == "gripper" else columns[grip])
        names.append("gripper")
    return parts, names


def _columns(source: Source, uri: str) -> dict[str, np.ndarray]:
    """The numbers that are used of each frame, float64 [n, d], of those fields that the first frame has."""
    values: dict[str, array[float]] = {}
    widths: dict[str, int] = {}
    number = 0
    for number, line in enumerate(_lines(source, uri), 1):
        try:
            frame = parse_json(line.decode())
            if not isinstance(frame, dict):
                raise ValueError("it is not an object")
            if number == 1:
                values = {k: array("d") for k in (*JOINTS, *GRIPPER, "timestamp") if k in frame}
                widths = {k: len(_numbers(frame, k)) for k in values}
            for key, column in values.items():
                if len(found := _numbers(frame, key)) != widths[key]:
                    raise ValueError(f"{key} has {len(found)} values, {widths[key]} before")
                column.extend(found)
        except (ValueError, OverflowError) as e:
            raise RowsError(f"{uri} line {number}: {e}") from e
    if number == 0:
        raise RowsError(f"{uri} has no line", "no_data")
    if not values:
        raise RowsError(f"{uri} has neither joints nor a gripper")
    return {k: np.frombuffer(v, np.float64).reshape(number, widths[k]) for k, v in values.items()}


def _numbers(frame: dict[str, Any], key: str) -> list[float]:
    value = frame.get(key)
    numbers: list[Any] = [v for v in (value if isinstance(value, list) else [value]) if type(v) in (int, float)]
    if not numbers or (isinstance(value, list) and len(numbers) < len(value)):
        raise ValueError(f"{key} is not a number or a list of them")
    return numbers


def _seconds(times: np.ndarray | None) -> np.ndarray | None:
    """The card gives milliseconds, published samples have seconds: a step of over one can only be the former."""
    if times is None or times.shape[1] != 1:
        return None
    since = times[:, 0] - times[0, 0]
    return since / 1000 if len(since) > 1 and np.median(np.diff(since)) > 1 else since


def _lines(source: Source, uri: str) -> Iterator[bytes]:
    """Lines that are not empty; raises RowsError."""
    if source.files[uri].size > MAX_BYTES:
        raise RowsError(f"{uri} has {source.files[uri].size} bytes")
    path = source.resolve(uri)
    try:
        with path.open("rb") as file:
            while line := file.readline(MAX_LINE_BYTES):
                if line.startswith(LFS_MARK):
                    raise RowsError(f"{uri} is a git-LFS pointer", "lfs_pointer")
                if len(line) == MAX_LINE_BYTES:
                    raise RowsError(f"{uri} has a line of more than {MAX_LINE_BYTES} bytes")
                if line.strip():
                    yield line
    except OSError as e:
        raise RowsError(f"{uri} cannot be read: {e.strerror}") from e
