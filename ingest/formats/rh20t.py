"""Adapter for RH20T as released: a folder per scene with one video per camera, and the scene's rating.

State, and when each frame was taken, are in pickled dictionaries (rh20t_api loads them so). A pickle can run code, so
they are not read: state is there only where someone has stored it as plain arrays.
"""

import re
from collections.abc import Callable, Iterator
from tokenize import TokenError
from typing import Any

import numpy as np

from ingest.episode import CameraVideo, Episode, EpisodeRecord, Finding, Listing, RowsError, TimedPicture, timed
from ingest.formats.cameras import scene_first
from ingest.formats.proprio import joined, signals
from ingest.formats.side_files import read_json
from ingest.media.video import DECODE_ALL, LFS_MARK, DecodeOptions, VideoError, decode, probe
from ingest.sources.files import Source

SCENE = re.compile(r"((?:.*/)?(task_[0-9]+)_user_[0-9]+_scene_[0-9]+_cfg_[0-9]+(_human)?)/(.+)")
CAMERA_FILE = re.compile(r"(cam_[^/]+)/.+")
COLOR = "color.mp4"
STATE, GRIPPER = "transformed/tcp_base.npy", "transformed/gripper.npy"
TASKS = "task_description.json"
TEXT_KEYS = ("task_description_english", "task_description_chinese")
DEFAULT_FPS = 10.0  # at which the cameras were recorded
FAILED, BEST = (0, 1), 9  # ratings: 0 emergency stop, 1 failed, 2 to 9 how well it went
MAX_VALUES = 10_000_000
# What NumPy lets through for damaged headers, which it reads as Python
HEADER_ERRORS = (
    OSError,
    ValueError,
    EOFError,
    SyntaxError,
    TokenError,
    TypeError,
    OverflowError,
    RecursionError,
    MemoryError,
)


class PickledError(Exception):
    """An array file that holds pickled Python objects."""


def recognises(source: Source) -> bool:
    return any(SCENE.fullmatch(u) for u in source.files)


def list_episodes(source: Source) -> Listing:
    scenes: dict[str, list[str]] = {}
    human: set[str] = set()
    for uri in source.files:
        if m := SCENE.fullmatch(uri):
            if m[3]:
                human.add(m[1])
            else:
                scenes.setdefault(m[1], []).append(m[4])
    findings: list[Finding] = []
    texts = _task_texts(source, findings)
    records, pickled = [], 0
    for index, folder in enumerate(sorted(scenes)):
        record, is_pickled = _scene(source, index, folder, scenes[folder], texts, findings)
        records.append(record)
        pickled += is_pickled
    if human:
        detail = f"{len(human)} folders ({sorted(human)[0]}, ...) show a person at the task; they are left out"
        findings.append(Finding("human_demonstration", detail, "warning"))
    if pickled:
        detail = f"state and gripper of {pickled} episodes are pickled, so the episodes have pictures and texts only"
        findings.append(Finding("pickled_data", detail, "warning"))
    if not records:
        findings.append(Finding("no_episodes", "no folder task_*_user_*_scene_*_cfg_* of a robot"))
    cameras = dict.fromkeys(c for r in records for c in r.cameras)
    return Listing(
        "rh20t",
        records[0].fps if records else None,
        source.config.robot,
        tuple(scene_first(cameras, source.config.cameras)),
        tuple(records),
        tuple(findings),
        numbered=False,
    )


def _scene(
    source: Source,
    index: int,
    folder: str,
    files: list[str],
    texts: dict[str, tuple[str, ...]],
    findings: list[Finding],
) -> tuple[EpisodeRecord, bool]:
    """One scene's record, and whether its state is pickled."""

    def say(reason: str, detail: str, uri: str, severity: str = "warning", camera: str | None = None) -> None:
        findings.append(Finding(reason, detail, severity, index, camera, uri))

    there = {m[1] for f in files if (m := CAMERA_FILE.fullmatch(f))}
    cameras = [c for c in scene_first(there, source.config.cameras) if f"{c}/{COLOR}" in files]
    for camera in sorted(there.difference(cameras)):
        if cameras:
            say("missing_camera", f"there is no {COLOR}", f"{folder}/{camera}", camera=camera)
    videos = tuple(CameraVideo(c, f"{folder}/{c}/{COLOR}", 0) for c in cameras)
    if not videos:
        say("no_video", f"no camera has a {COLOR}", folder, "unusable")
    fps, num_rows = source.config.fps or DEFAULT_FPS, None
    for video in videos:  # rows are the frames of the first camera that can be opened: the others run by themselves
        try:
            info = probe(source.resolve(video.uri))
        except VideoError as e:
            say(e.reason, str(e), video.uri, "warning", video.camera)
            continue
        fps, num_rows = source.config.fps or info.fps, info.num_frames
        break
    else:
        if videos:
            say("no_video", "no camera's video can be opened", folder, "unusable")
    metadata = _metadata(source, f"{folder}/metadata.json", say)
    tasks = texts.get(folder.rpartition("/")[2][: len("task_0000")], ())
    if not tasks:
        say("no_task", f"no text for it in {TASKS}", folder)
    rows, is_pickled = None, False
    try:
        rows = next((len(a) for a in _arrays(source, folder)), None)
    except PickledError:
        is_pickled = True
    except RowsError as e:
        say(e.reason, f"{e}; state and gripper are not used", f"{folder}/{STATE}")
    if rows is not None and rows != num_rows:
        say("length_differs", f"{rows} states for {num_rows} frames; state is not used", f"{folder}/{STATE}")
    group = metadata.get(source.config.group_field or "")
    stamped = [f"{folder}/{f}" for f in ("metadata.json", STATE, GRIPPER)] + [v.uri for v in videos]
    return EpisodeRecord(
        episode_index=index,
        source_id=folder,
        fps=fps,
        task=tasks[0] if tasks else None,
        tasks=tasks,
        num_rows=num_rows,
        data_uri=f"{folder}/{STATE}" if rows is not None and rows == num_rows else None,
        videos=videos,
        success=_success(metadata, source.config.success_field),
        group=folder if group in (None, "") else str(group),
        source_stamp=source.stamp(stamped, num_rows),
    ), is_pickled


def _metadata(source: Source, uri: str, say: Callable[[str, str, str], None]) -> dict[str, Any]:
    if uri not in source.files:
        say("no_metadata", "there is no metadata.json, so whether it succeeded is not known", uri)
        return {}
    try:
        metadata = read_json(source, uri)
    except RowsError as e:
        say(e.reason, str(e), uri)
        return {}
    return metadata if isinstance(metadata, dict) else {}


def _success(metadata: dict[str, Any], field: str) -> bool | None:
    stated, rating = metadata.get(field), metadata.get("rating")
    if isinstance(stated, bool):
        return stated
    if not isinstance(rating, int) or isinstance(rating, bool) or not 0 <= rating <= BEST:
        return None
    return rating not in FAILED


def _task_texts(source: Source, findings: list[Finding]) -> dict[str, tuple[str, ...]]:
    """Instructions by task (`task_0001`), the English one first."""
    texts: dict[str, tuple[str, ...]] = {}
    for uri in source.by_name.get(TASKS, []):
        try:
            stored = read_json(source, uri)
        except RowsError as e:
            findings.append(Finding(e.reason, str(e), "warning", file=uri))
            continue
        for task, said in stored.items() if isinstance(stored, dict) else ():
            listed = [said.get(k) for k in TEXT_KEYS] if isinstance(said, dict) else [said]
            texts[task] = tuple(t.strip() for t in listed if isinstance(t, str) and t.strip())
    return texts


# Arrays


def _array(source: Source, uri: str) -> np.ndarray:
    """Rows [n, d] of a .npy file, mapped, not read. Raises RowsError, and PickledError for pickled objects."""
    path = source.resolve(uri)
    try:
        with path.open("rb") as f:
            if f.read(len(LFS_MARK)) == LFS_MARK:
                raise RowsError(f"{uri} is a git-LFS pointer, not the file", "lfs_pointer")
            f.seek(0)
            version = np.lib.format.read_magic(f)
            header = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
            shape, _, dtype = header(f)
        if dtype.hasobject:
            raise PickledError(uri)
        if (
            dtype.kind not in "fiu"
            or len(shape) not in (1, 2)
            or 0 in shape
            or np.prod(shape, dtype=float) > MAX_VALUES
        ):
            raise RowsError(f"{uri} holds no rows of numbers: {dtype} {shape}")
        stored = np.load(path, mmap_mode="r", allow_pickle=False)
    except HEADER_ERRORS as e:
        raise RowsError(f"{uri} is no array that can be read ({e})") from e
    return stored.reshape(len(stored), -1)


def _arrays(source: Source, folder: str) -> list[np.ndarray]:
    """State, and the gripper where it is there; none without state. Raises as _array does."""
    uris = [uri for f in (STATE, GRIPPER) if (uri := f"{folder}/{f}") in source.files]
    arrays = [_array(source, uri) for uri in uris] if f"{folder}/{STATE}" in uris else []
    if len({len(a) for a in arrays}) > 1:
        raise RowsError(f"{len(arrays[0])} rows of state, {len(arrays[1])} of the gripper", "length_differs")
    return arrays


def read_episode(source: Source, record: EpisodeRecord) -> Episode:
    """Rows, where they are plain arrays, and frames; raises RowsError when rows cannot be read."""
    state, names = None, []
    if record.data_uri is not None:
        try:
            arrays = _arrays(source, record.source_id)
        except PickledError as e:
            raise RowsError(f"{e} is pickled", "pickled_data") from e
        state = joined(arrays)
        if state is None or len(state) != record.num_rows:
            raise RowsError(f"{record.data_uri} has other rows than it had")
        if len(arrays) > 1:  # the gripper's first value is its width, in mm
            names = ["tcp"] * arrays[0].shape[1] + ["gripper"]
    rest, gripper = signals(state, None, source.config.gripper, names)

    def frames(camera: str, options: DecodeOptions = DECODE_ALL) -> Iterator[TimedPicture]:
        video = next(v for v in record.videos if v.camera == camera)
        return timed(decode(source.resolve(video.uri), options=options), record.fps)

    return Episode(record, rest, gripper, None, frames)
