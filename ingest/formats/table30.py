"""Adapter for RoboChallenge Table30 as its makers publish it, unpacked; the second edition (Table30 v2) too.

`<task>/meta/task_info.json` names robot, prompt and frame rate. `<task>/data/episode_<n>/` has
`videos/<camera>.mp4`, `meta/episode_meta.json`, and a line of JSON for each frame in
`states/states.jsonl`, or for two arms in `left_states.jsonl` and `right_states.jsonl`. A root that
is itself one task's folder is read as well.
"""

import posixpath
import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from itertools import chain
from typing import Any, NamedTuple

import numpy as np

from ingest.episode import EpisodeData, EpisodeRecord, Listing
from ingest.formats.folders import (
    MAX_FRAMES,
    EpisodeFiles,
    episodes_of,
    frames_of,
    object_of,
)
from ingest.formats.listing import (
    ListingBuilder,
    account_for_fields,
    folders_of,
    in_order,
    texts_among,
)
from ingest.formats.side_files import parse_json, parse_json_lines, read_bytes
from ingest.formats.tables import rate_of, stated_vectors
from ingest.formats.tree import Part, account, fields
from ingest.formats.tree_reader import ArrayTree, read_arrays, roles_of, why_known
from ingest.formats.writers import ARM_GRIPPERS, ARM_JOINTS, TABLE30
from ingest.reasons import DataError
from ingest.sources.files import Source

TASK_INFO = "meta/task_info.json"
TASK_DESCRIPTION = "task_desc.json"
EPISODE = r"^(?:(.+)/)?data/(episode_[^/]+)/"  # folder of the task, name
VIDEO_FILE = re.compile(EPISODE + r"videos/([^/]+)\.mp4$")
STATES_FILE = re.compile(EPISODE + r"states/((?:left_|right_)?states)\.jsonl$")
META_FILE = re.compile(EPISODE + r"meta/(episode_meta)\.json$")
TASK_FILE = re.compile(r"^(?:(.+)/)?meta/task_info\.json$")
FPS = 30.0  # where the task does not say
FIRST_CAMERAS = ("global_realsense_rgb", "main_realsense_rgb", "cam_high_rgb", "cam_global_rgb")
WRIST = ("arm_", "handeye", "wrist")
TIME = "timestamp"
TASK_USES = {
    "prompt": ("instruction", "its name"),
    "video_info": ("rate", "its field fps"),
    "robot_id": ("robot", "its name"),
}
UR5_CLOSED = 255.0  # its `gripper` is 0 when open
# Files of one arm, or of the left and the right one: of one of two arms alone nothing is used
ARMS = (("states",), ("left_states", "right_states"))
NO_STATES = "no states of the arm, or of one of two arms"
STATES = 4  # times limits.max_file_bytes: a frame has 1 kB


class TaskFacts(NamedTuple):
    """What a task's files say; empty where they do not."""

    texts: tuple[str, ...]
    fps: float
    robot: str


def roots(uris: Iterable[str]) -> dict[str, str]:
    """The folders of tasks."""
    uris = list(uris)
    patterns = (TASK_FILE, VIDEO_FILE, STATES_FILE, META_FILE)
    return dict.fromkeys(chain.from_iterable(folders_of(pattern, uris) for pattern in patterns), "")


def list_episodes(source: Source) -> Listing:
    listing = ListingBuilder(source)
    files: dict[tuple[str, str], EpisodeFiles] = defaultdict(EpisodeFiles)
    for uri in source.files:
        if match := VIDEO_FILE.match(uri):
            files[match[1] or "", match[2]].videos[match[3]] = uri
        # Metadata alone is an episode, too
        elif match := STATES_FILE.match(uri) or META_FILE.match(uri):
            files[match[1] or "", match[2]].tables[match[3]] = uri
    task_folders = sorted({task for task, _ in files})
    tasks = {task: _task_facts(listing, task) for task in task_folders}

    video_folder = "{task}/data/{episode}/videos"
    for (task, episode), source_id, episode_files, videos in episodes_of(
        listing, files, video_folder, FIRST_CAMERAS, WRIST
    ):
        facts = tasks[task]
        tables = episode_files.tables
        meta = listing.read_object(tables.get("episode_meta", ""), listing.next_index)
        names = next((names for names in ARMS if tables.keys() >= {*names}), ())
        states = [tables[name] for name in names]
        num_rows = _num_rows(listing, posixpath.join(task, f"data/{episode}"), states, meta)
        listing.account_for_facts(
            "episode_meta.json: ", meta, {"frames": ("length", "its name")}, TABLE30
        )
        if not facts.texts:
            listing.warn_next("no_task", f"no prompt in {posixpath.join(task, TASK_INFO)}")
        listing.add(
            source_id,
            source.config.fps or facts.fps,
            tasks=facts.texts,
            num_rows=num_rows,
            data_uri=next(iter(states), None),
            videos=videos,
            facts=meta,
            files=states,
        )
    robots = sorted({task.robot for task in tasks.values()} - {""})
    return listing.listing(
        "table30",
        in_order(listing.cameras_in_use(), source.config.cameras, FIRST_CAMERAS, WRIST),
        fps=source.config.fps,
        robot=", ".join(robots) or None,
        nothing="no folder data/episode_<n> below the task's folder",
    )


def _task_facts(listing: ListingBuilder, task: str) -> TaskFacts:
    """Prompts, frame rate and robot of a task, from task_info.json and, in the second edition, task_desc.json."""
    info_uri = posixpath.join(task, TASK_INFO)
    description_uri = posixpath.join(task, TASK_DESCRIPTION)
    info = listing.read_object(info_uri)
    description = listing.read_object(description_uri)
    if info_uri not in listing.source.files:
        listing.warn("no_metadata", f"there is no {info_uri}", file=info_uri)
    # Both files may have a prompt: texts that differ are both kept
    texts = texts_among([object_of(info.get("task_desc")).get("prompt"), description.get("prompt")])
    only_there = [name for name in object_of(info.get("task_desc")) if name not in description]
    for prefix, names, uri in (
        (f"{TASK_INFO}: ", info, info_uri),
        (f"{TASK_INFO}: task_desc.", only_there, info_uri),
        (f"{TASK_DESCRIPTION}: ", description, description_uri),
    ):
        account_for_fields(listing.parts, prefix, names, TASK_USES, TABLE30, file=uri)
    # Without task_info.json the description counts for the rest, too
    facts = info or description
    fps = object_of(facts.get("video_info")).get("fps")
    robot = facts.get("robot_id")
    return TaskFacts(texts, rate_of(fps) or FPS, robot if isinstance(robot, str) else "")


def _num_rows(
    listing: ListingBuilder, folder: str, states: list[str], meta: dict[str, Any]
) -> int | None:
    """Lines of the states, which count before what the metadata says; of a remote source only the latter is read."""
    frames = meta.get("frames")
    stated_frames = frames if type(frames) is int and 0 <= frames < MAX_FRAMES else None
    # The metadata's count stands where no line can be counted
    if not states:
        expected = f"{folder}/states/states.jsonl"
        listing.unusable_next("no_data", f"{NO_STATES}; looked for {expected}", expected)
        return stated_frames
    if listing.source.config.is_remote:
        return stated_frames
    try:
        lines = [line for line in _content(listing.source, states[0]).split(b"\n") if line.strip()]
        num_rows = len(lines)
        _account_for_states(listing, lines[:1], states[0])
    except DataError as e:
        listing.unusable_next(e.reason, str(e), states[0])
        return stated_frames
    if num_rows == 0:
        listing.unusable_next("no_data", "its states have no line", states[0])
    # The lines count; the difference is worth a look
    if stated_frames not in (None, num_rows):
        detail = f"metadata says {stated_frames} frames, its states are {num_rows}"
        listing.warn_next("length_differs", detail, f"{folder}/meta/episode_meta.json")
    return num_rows


def _account_for_states(listing: ListingBuilder, first: Sequence[bytes], uri: str) -> None:
    """What each field of an arm's first frame is used for; `first`: its line, if there is any."""
    try:
        frame = object_of(parse_json(b"".join(first).decode(errors="replace")))
    except ValueError:
        return  # what is wrong with it is found when the rows are read
    arrays = [Part(field, shape=(1, 1)) for field in _fields_read(frame)]
    uses = roles_of(arrays, listing.source.config.keys, TABLE30).uses
    parts = fields("states: ", frame, "column", uri)
    account(listing.parts, parts, uses, lambda part: why_known(part, TABLE30))


def _fields_read(frame: Mapping[str, Any]) -> list[str]:
    """Fields with numbers that may be read; several values of a gripper are its buttons."""
    buttons = [
        name for name in ARM_GRIPPERS if isinstance(frame.get(name), list) and len(frame[name]) != 1
    ]
    return [
        name for name in (*ARM_JOINTS, *ARM_GRIPPERS, TIME) if name in frame and name not in buttons
    ]


def _content(source: Source, uri: str) -> bytes:
    """Raises DataError for a file that is too large, before it is fetched."""
    content = read_bytes(source, uri, STATES)
    source.config.limits.check("max_rows", content.count(b"\n"), f"{uri}: lines")
    return content


# Rows


def read_episode(source: Source, record: EpisodeRecord) -> EpisodeData:
    """Joints and gripper opening of the arm, or of the left and the right one; raises DataError."""
    uri = record.data_uri
    if uri is None:
        raise DataError(NO_STATES, "no_data")
    match = STATES_FILE.match(uri)
    # What is wrong with the task's files was found when the dataset was listed: it goes nowhere here
    robot = _task_facts(ListingBuilder(source), match[1] or "").robot if match else ""
    arrays: dict[str, np.ndarray] = {}
    # Of two arms the record names the left one's file
    for arm in ("left", "right") if "/left_states." in uri else ("",):
        columns = _columns(source, uri.replace("/left_states.", f"/{arm}_states."))
        for field, values in columns.items():
            is_closed = field == "gripper" and "ur5" in robot.lower()
            arrays[posixpath.join(arm, field)] = UR5_CLOSED - values if is_closed else values
    described = {path: Part(path, file=uri) for path in arrays}
    tree = ArrayTree(arrays, described, source.config.keys, TABLE30)
    # Of a remote source only the metadata's count was known; now the rows themselves are there
    return read_arrays(replace(record, num_rows=None), lambda: tree, frames_of(source, record))


def _columns(source: Source, uri: str) -> dict[str, np.ndarray]:
    """The numbers of an arm's frames by field, float64 [n, d], of those that the first frame has. Raises DataError."""
    lines, problems = parse_json_lines(_content(source, uri).decode(errors="replace"))
    if problems:
        number, problem = problems[0]
        raise DataError(f"{uri}, line {number}: {problem}")
    rows = [object_of(row) for _, row in lines]
    if not rows:
        raise DataError(f"{uri} has no line", "no_data")
    columns = {}
    for key in _fields_read(rows[0]):
        values = stated_vectors([row.get(key) for row in rows], f"{uri}: {key}")
        if values is None or np.isnan(values).any():
            raise DataError(f"{uri}: {key} is not a number or a list of them in every line")
        source.config.limits.check("max_values", values.size, f"{key}: values")
        columns[key] = values
    if columns.keys() <= {TIME}:
        raise DataError(f"{uri} has neither joints nor a gripper")
    return columns
