"""Adapter for RoboChallenge Table30 as its makers publish it, unpacked; the second edition (Table30 v2) too.

`<task>/meta/task_info.json` names robot, prompt and frame rate. `<task>/data/episode_<n>/` has `videos/<camera>.mp4`,
`meta/episode_meta.json`, and a line of JSON for each frame in `states/states.jsonl`, or for two arms in
`left_states.jsonl` and `right_states.jsonl`. A root that is itself one task's folder is read as well.
"""

import re
from array import array
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ingest.episode import Episode, EpisodeRecord, Listing, RowsError
from ingest.formats.cameras import in_order
from ingest.formats.listing import ListingBuilder, folders_of, unique_texts
from ingest.formats.proprio import joined
from ingest.formats.side_files import parse_json
from ingest.formats.tables import check
from ingest.formats.whole_videos import EpisodeKey, cameras_by_task, frames_of, videos_in, videos_of
from ingest.limits import Limits
from ingest.media.video import LFS_MARK
from ingest.outcomes import Evidence
from ingest.sources.files import Source

TASK_INFO, TASK_DESCRIPTION = "meta/task_info.json", "task_desc.json"
EPISODE = r"^(?:(.+)/)?data/(episode_[^/]+)/"  # folder of the task, name
VIDEO_FILE = re.compile(EPISODE + r"videos/([^/]+)\.mp4$")
STATES_FILE = re.compile(EPISODE + r"states/((?:left_|right_)?states)\.jsonl$")
META_FILE = re.compile(EPISODE + r"meta/episode_meta\.json$")
TASK_FILE = re.compile(r"^(?:(.+)/)?meta/task_info\.json$")
FPS, MAX_FPS = 30.0, 1000  # where the task does not say; no camera is so fast
FIRST_CAMERAS = ("global_realsense_rgb", "main_realsense_rgb", "cam_high_rgb", "cam_global_rgb")
WRIST = ("arm_", "handeye", "wrist")
JOINTS = ("qpos", "joint_positions")  # ALOHA has both: of the arm, and of the one that leads it
GRIPPER = ("gripper_width", "gripper")  # Franka has both: metres, and two buttons
UR5_CLOSED = 255.0  # its `gripper` is 0 when open
MAX_ROWS = 1 << 31  # no episode has so many
NO_STATES = "no states of the arm, or of one of two arms"
# Times limits.max_file_bytes, and limits.max_text: a frame has 1 kB
STATES, LINE = 4, 16


class TaskFacts(NamedTuple):
    """What a task's files say; empty where they do not."""

    texts: tuple[str, ...]
    fps: float
    robot: str


@dataclass
class Table30Files:
    videos: dict[str, str] = field(default_factory=dict)  # uri by camera
    states: dict[str, str] = field(default_factory=dict)  # uri by name: states, left_states or right_states

    def states_uris(self) -> list[str]:
        """One arm's file, or left and right; empty when there is none, or only one of two."""
        if "states" in self.states:
            return [self.states["states"]]
        if len(self.states) < 2:
            return []
        return [self.states["left_states"], self.states["right_states"]]


def recognises(source: Source) -> bool:
    return bool(roots(source.files))


def roots(uris: Iterable[str]) -> dict[str, str]:
    """The folders of tasks."""
    uris = list(uris)
    patterns = (TASK_FILE, VIDEO_FILE, STATES_FILE, META_FILE)
    return {folder: "" for pattern in patterns for folder in folders_of(pattern, uris)}


def list_episodes(source: Source) -> Listing:
    listing = ListingBuilder(source)
    files = _files_by_episode(source)
    # Robots, and so cameras and texts, differ between tasks
    cameras = cameras_by_task({key: episode.videos for key, episode in files.items()})
    order = in_order(set().union(*cameras.values()), source.config.cameras, FIRST_CAMERAS, WRIST)
    task_names = sorted({key.task for key in files})
    tasks = {task: _task_facts(listing, task) for task in task_names}

    # In the order of source ids, by which episodes without numbers of their own are counted
    for key in sorted(files, key=lambda k: k.source_id):
        expected = [camera for camera in order if camera in cameras[key.task]]
        listing.records.append(_record(listing, key, files[key], tasks[key.task], expected))

    if not listing.records:
        listing.lists_nothing("no folder data/episode_<n> below the task's folder")
    fps = source.config.fps or listing.first_fps()
    return listing.listing("table30", fps, order, robot=_robots(tasks.values()))


def _robots(tasks: Iterable[TaskFacts]) -> str | None:
    """The robots of some tasks, each once; None where no task names one."""
    robots = sorted({task.robot for task in tasks} - {""})
    return ", ".join(robots) or None


def _files_by_episode(source: Source) -> dict[EpisodeKey, Table30Files]:
    files: dict[EpisodeKey, Table30Files] = defaultdict(Table30Files)
    for uri in source.files:
        if match := VIDEO_FILE.match(uri):
            files[_key(match)].videos[match[3]] = uri
        elif match := STATES_FILE.match(uri):
            files[_key(match)].states[match[3]] = uri
        elif match := META_FILE.match(uri):
            files[_key(match)]  # an episode also where it has nothing else
    return files


def _key(match: re.Match[str]) -> EpisodeKey:
    return EpisodeKey(match[1] or "", match[2])


def _join(folder: str, name: str) -> str:
    return f"{folder}/{name}" if folder else name


def _record(
    listing: ListingBuilder, key: EpisodeKey, files: Table30Files, task: TaskFacts, expected: list[str]
) -> EpisodeRecord:
    source, index = listing.source, listing.next_index
    folder = _join(key.task, f"data/{key.episode}")
    videos = videos_of(listing, files.videos, videos_in(f"{folder}/videos", expected))
    states_uris = files.states_uris()
    meta_uri = f"{folder}/meta/episode_meta.json"
    meta = listing.read_object(meta_uri, index) if meta_uri in source.files else {}
    num_rows = _num_rows(listing, f"{folder}/states/states.jsonl", states_uris, meta, meta_uri)
    if not task.texts:
        listing.warn("no_task", f"no prompt in {_join(key.task, TASK_INFO)}", index)
    listing.evidence[index] = Evidence(listing.stated_outcome(meta))
    video_uris = [video.uri for video in videos]
    return EpisodeRecord(
        episode_index=index,
        source_id=key.source_id,
        fps=source.config.fps or task.fps,
        task=next(iter(task.texts), None),
        tasks=task.texts,
        num_rows=num_rows,
        data_uri=next(iter(states_uris), None),
        videos=videos,
        group=listing.group(meta, key.source_id),
        source_stamp=source.stamp([*video_uris, *states_uris], num_rows),
    )


def _task_facts(listing: ListingBuilder, task: str) -> TaskFacts:
    """Prompts, frame rate and robot of a task, from task_info.json and, in the second edition, task_desc.json."""
    info: dict[str, Any] = {}
    description: dict[str, Any] = {}
    info_uri, description_uri = _join(task, TASK_INFO), _join(task, TASK_DESCRIPTION)
    if info_uri in listing.source.files:
        info = listing.read_object(info_uri)
    else:
        listing.warn("no_metadata", f"there is no {info_uri}", file=info_uri)
    if description_uri in listing.source.files:
        description = listing.read_object(description_uri)

    # Both files may have a prompt: texts that differ are both kept
    described = _object(info.get("task_desc"))
    texts = unique_texts([described.get("prompt"), description.get("prompt")])
    # Without task_info.json the description counts for the rest, too
    facts = info or description
    fps = _object(facts.get("video_info")).get("fps")
    robot = facts.get("robot_id")
    return TaskFacts(
        texts,
        float(fps) if isinstance(fps, int | float) and 0 < fps < MAX_FPS else FPS,
        robot if isinstance(robot, str) else "",
    )


def _object(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _num_rows(
    listing: ListingBuilder, expected_uri: str, states_uris: list[str], meta: dict[str, Any], meta_uri: str
) -> int | None:
    """Lines of the states, which count before what the metadata says; of a remote source only the latter is read."""
    index = listing.next_index
    # The metadata's count stands where no line can be counted
    stated = _stated_rows(meta)
    if not states_uris:
        listing.unusable("no_data", f"{NO_STATES}; looked for {expected_uri}", index, file=expected_uri)
        return stated
    if listing.source.config.is_remote:
        return stated
    try:
        num_rows = sum(1 for _ in _lines(listing.source, states_uris[0]))
    except RowsError as e:
        listing.unusable(e.reason, str(e), index, file=states_uris[0])
        return stated
    if num_rows == 0:
        listing.unusable("no_data", "its states have no line", index, file=states_uris[0])
    # The lines count; the difference is worth a look
    if stated not in (None, num_rows):
        detail = f"metadata says {stated} frames, its states are {num_rows}"
        listing.warn("length_differs", detail, index, file=meta_uri)
    return num_rows


def _stated_rows(meta: dict[str, Any]) -> int | None:
    frames = meta.get("frames")
    return frames if type(frames) is int and 0 <= frames < MAX_ROWS else None


# Rows


def read_episode(source: Source, record: EpisodeRecord) -> Episode:
    """Joints and gripper opening of the arm, or of the left and the right one; raises RowsError."""
    if record.data_uri is None:
        raise RowsError(NO_STATES, "no_data")
    match = STATES_FILE.match(record.data_uri)
    # What is wrong with the task's files was found when the dataset was listed: it goes nowhere here
    robot = _task_facts(ListingBuilder(source), match[1] or "").robot if match else ""
    is_ur5 = "ur5" in robot.lower()

    # Of two arms the record names the left one's file
    right_uri = record.data_uri.replace("/left_states.", "/right_states.")
    if right_uri == record.data_uri:
        columns = _columns(source, record.data_uri)
        parts, names = _arm(columns, is_ur5)
    else:
        right, right_names = _arm(_columns(source, right_uri), is_ur5)
        columns = _columns(source, record.data_uri)  # the times are those of the left arm
        left, left_names = _arm(columns, is_ur5)
        parts = [*left, *right]
        names = [f"left.{name}" for name in left_names] + [f"right.{name}" for name in right_names]

    # Of a remote source only the metadata's count was known; now the rows themselves are there
    record = replace(record, num_rows=len(next(iter(columns.values()))))
    times_s = _seconds(columns.get("timestamp"))
    return Episode(record, joined(parts), None, times_s, frames_of(source, record), tuple(names))


def _arm(columns: dict[str, np.ndarray], is_ur5: bool) -> tuple[list[np.ndarray], list[str]]:
    """Joints, then the gripper's opening, of one arm, and a name for each dimension."""
    parts: list[np.ndarray] = []
    names: list[str] = []
    # Of two fields with joints only the first is the arm's own
    joints_key = next((key for key in JOINTS if key in columns), None)
    if joints_key:
        joints = columns[joints_key]
        parts.append(joints)
        names += [f"joint.{k}" for k in range(joints.shape[1])]
    opening = _opening(columns, is_ur5)
    if opening is not None:
        parts.append(opening)
        names.append("gripper_opening")
    return parts, names


def _opening(columns: dict[str, np.ndarray], is_ur5: bool) -> np.ndarray | None:
    """The gripper's opening [n, 1], by the first field that has one value per frame."""
    for key in GRIPPER:
        if key in columns and columns[key].shape[1] == 1:
            is_closing = is_ur5 and key == "gripper"
            return UR5_CLOSED - columns[key] if is_closing else columns[key]
    return None


class _Columns:
    """The numbers that are used of each frame, of those fields that the first frame has."""

    def __init__(self, limits: Limits) -> None:
        self.values: dict[str, array[float]] = {}
        self.widths: dict[str, int] = {}
        self.num_rows, self.limits = 0, limits

    def add(self, line: bytes) -> None:
        """One frame's line. Raises ValueError and OverflowError, which say what is wrong with it, and RowsError."""
        frame = parse_json(line.decode())
        if not isinstance(frame, dict):
            raise ValueError("it is not an object")
        # The first frame decides which fields there are, and how wide each is
        if self.num_rows == 0:
            self._begin(frame)
        for key, column in self.values.items():
            numbers = _numbers(frame, key)
            if len(numbers) != self.widths[key]:
                raise ValueError(f"{key} has {len(numbers)} values, {self.widths[key]} before")
            column.extend(numbers)
            check(self.limits.excess("max_values", len(column), f"{key}: values"))
        self.num_rows += 1

    def _begin(self, frame: dict[str, Any]) -> None:
        """Fields and widths, which all further frames must have. Raises ValueError."""
        self.values = {key: array("d") for key in (*JOINTS, *GRIPPER, "timestamp") if key in frame}
        self.widths = {key: len(_numbers(frame, key)) for key in self.values}

    def arrays(self) -> dict[str, np.ndarray]:
        """The fields by name, float64 [n, d]."""
        return {
            key: np.frombuffer(values, np.float64).reshape(self.num_rows, self.widths[key])
            for key, values in self.values.items()
        }


def _columns(source: Source, uri: str) -> dict[str, np.ndarray]:
    """The numbers of an arm's frames by field, float64 [n, d]. Raises RowsError."""
    columns = _Columns(source.config.limits)
    for number, line in enumerate(_lines(source, uri), 1):
        try:
            columns.add(line)
        except (ValueError, OverflowError) as e:
            raise RowsError(f"{uri} line {number}: {e}") from e
    if columns.num_rows == 0:
        raise RowsError(f"{uri} has no line", "no_data")
    if not columns.values:
        raise RowsError(f"{uri} has neither joints nor a gripper")
    return columns.arrays()


def _numbers(frame: dict[str, Any], key: str) -> list[float]:
    stored = frame.get(key)
    values: list[Any] = stored if isinstance(stored, list) else [stored]
    if not values or any(type(value) not in (int, float) for value in values):
        raise ValueError(f"{key} is not a number or a list of them")
    return values


def _seconds(times: np.ndarray | None) -> np.ndarray | None:
    """The card gives milliseconds, published samples have seconds: a step of over one can only be the former."""
    if times is None or times.shape[1] != 1:
        return None
    since = times[:, 0] - times[0, 0]
    return since / 1000 if len(since) > 1 and np.median(np.diff(since)) > 1 else since


def _lines(source: Source, uri: str) -> Iterator[bytes]:
    """Lines that are not empty; raises RowsError."""
    path, limits = _states_path(source, uri), source.config.limits
    longest, count = LINE * limits.max_text, 0
    try:
        with path.open("rb") as file:
            while line := file.readline(longest + 1):
                if line.startswith(LFS_MARK):
                    raise RowsError(f"{uri} is a git-LFS pointer", "lfs_pointer")
                check(limits.excess("max_text", len(line), f"{uri}: bytes of a line, at least", LINE))
                count += 1
                check(limits.excess("max_rows", count, f"{uri}: lines, at least"))
                if line.strip():
                    yield line
    except OSError as e:
        raise RowsError(f"{uri} cannot be read: {e.strerror}") from e


def _states_path(source: Source, uri: str) -> Path:
    """Raises RowsError for a file that is too large, before it is fetched."""
    size = source.files[uri].size
    check(source.config.limits.excess("max_file_bytes", size, f"{uri}: bytes", STATES))
    return source.resolve(uri)
