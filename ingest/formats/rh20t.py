"""Adapter for RH20T as released: a folder per scene with one video per camera, and the scene's rating.

State, and when each frame was taken, are in pickled dictionaries (rh20t_api loads them so). A pickle can run code, so
they are not read: state is there only where someone has stored it as plain arrays.
"""

import posixpath
import re
from collections.abc import Iterable
from typing import Any, NamedTuple

import numpy as np

from ingest.episode import CameraVideo, Episode, EpisodeRecord, Listing, RowsError
from ingest.formats.arrays import PickledError, read_npy
from ingest.formats.cameras import scene_first
from ingest.formats.listing import ListingBuilder, folders_of, named, texts_among
from ingest.formats.proprio import joined
from ingest.formats.whole_videos import frames_of
from ingest.media.video import VideoError, probe
from ingest.outcomes import Evidence, Outcome
from ingest.sources.files import Source

SCENE = re.compile(r"((?:.*/)?(task_[0-9]+)_user_[0-9]+_scene_[0-9]+_cfg_[0-9]+(_human)?)/(.+)")
CAMERA_FILE = re.compile(r"(cam_[^/]+)/.+")
COLOR = "color.mp4"
STATE, GRIPPER = "transformed/tcp_base.npy", "transformed/gripper.npy"
TASKS = "task_description.json"
TEXT_KEYS = ("task_description_english", "task_description_chinese")
DEFAULT_FPS = 10.0  # at which the cameras were recorded
FAILED, BEST = (0, 1), 9  # ratings: 0 emergency stop, 1 failed, 2 to 9 how well it went


def recognises(source: Source) -> bool:
    return any(SCENE.fullmatch(u) for u in source.files)


def roots(uris: Iterable[str]) -> dict[str, str]:
    """The folders that hold scenes: that of one robot's configuration."""
    return {posixpath.dirname(scene): "" for scene in folders_of(SCENE, uris)}


class ScenesFound(NamedTuple):
    files: dict[str, list[str]]  # of a robot's scenes: paths below the scene's folder
    human: list[str]  # folders that show a person at the task


class StateFound(NamedTuple):
    """What was found of a scene's state without reading it: rows, where it is a plain array that can be read."""

    num_rows: int | None = None
    is_pickled: bool = False


class VideoFacts(NamedTuple):
    fps: float | None = None
    num_frames: int | None = None


def list_episodes(source: Source) -> Listing:
    listing = ListingBuilder(source)
    scenes = _scenes(source)
    texts = _task_texts(listing)

    num_pickled = 0
    for folder in sorted(scenes.files):
        state = _add_scene(listing, folder, scenes.files[folder], texts)
        num_pickled += state.is_pickled

    # What is so for many scenes is said once
    if scenes.human:
        detail = f"{len(scenes.human)} folders ({scenes.human[0]}, ...) show a person at the task; they are left out"
        listing.warn("human_demonstration", detail)
    if num_pickled:
        detail = (
            f"state and gripper of {num_pickled} episodes are pickled, so the episodes have pictures and texts only"
        )
        listing.warn("pickled_data", detail)
    if not listing.records:
        listing.lists_nothing("no folder task_*_user_*_scene_*_cfg_* of a robot")
    cameras = scene_first(listing.cameras_in_use(), source.config.cameras)
    return listing.listing("rh20t", listing.first_fps(), cameras)


def _scenes(source: Source) -> ScenesFound:
    files: dict[str, list[str]] = {}
    human: set[str] = set()
    for uri in source.files:
        match = SCENE.fullmatch(uri)
        if match and match[3]:
            human.add(match[1])
        elif match:
            files.setdefault(match[1], []).append(match[4])
    return ScenesFound(files, sorted(human))


def _add_scene(listing: ListingBuilder, folder: str, files: list[str], texts: dict[str, tuple[str, ...]]) -> StateFound:
    """Add one scene's record."""
    source, index = listing.source, listing.next_index
    state_uri, metadata_uri = f"{folder}/{STATE}", f"{folder}/metadata.json"
    videos = _videos(listing, folder, files)
    facts = _video_facts(listing, folder, videos)
    metadata = _metadata(listing, metadata_uri)
    # A scene's folder is called task_0001_user_...: texts are by the first part of it
    task_name = folder.rpartition("/")[2][: len("task_0000")]
    tasks = texts.get(task_name, ())
    if not tasks:
        listing.warn("no_task", f"no text for it in {TASKS}", index, file=folder)

    # State counts only where it has a row for each frame
    state = _state_found(listing, folder)
    has_state = state.num_rows is not None and state.num_rows == facts.num_frames
    if state.num_rows is not None and not has_state:
        detail = f"{state.num_rows} states for {facts.num_frames} frames; state is not used"
        listing.warn("length_differs", detail, index, file=state_uri)

    listing.evidence[index] = Evidence(listing.stated_outcome(metadata) or _by_rating(metadata))
    # Files that are not there are named too, so that the stamp changes when one comes
    stamped = [metadata_uri, state_uri, f"{folder}/{GRIPPER}", *(video.uri for video in videos)]
    record = EpisodeRecord(
        episode_index=index,
        source_id=folder,
        fps=source.config.fps or facts.fps or DEFAULT_FPS,
        task=next(iter(tasks), None),
        tasks=tasks,
        num_rows=facts.num_frames,
        data_uri=state_uri if has_state else None,
        videos=videos,
        group=listing.group(metadata, folder),
        source_stamp=source.stamp(stamped, facts.num_frames),
    )
    listing.records.append(record)
    return state


def _videos(listing: ListingBuilder, folder: str, files: list[str]) -> tuple[CameraVideo, ...]:
    """The videos of the coming scene by preference, with findings about cameras without one."""
    declared = _cameras_with_files(files)
    ordered = scene_first(declared, listing.source.config.cameras)
    cameras = [camera for camera in ordered if f"{camera}/{COLOR}" in files]
    if not cameras:
        expected = [f"{folder}/{camera}/{COLOR}" for camera in ordered] or [f"{folder}/cam_*/{COLOR}"]
        detail = f"no video file; looked for {named(expected)}"
        listing.unusable("no_video", detail, listing.next_index, file=expected[0])
        return ()
    # A camera's folder may hold other files, and no colours
    for camera in sorted(declared.difference(cameras)):
        where = f"{folder}/{camera}"
        listing.warn("missing_camera", f"there is no {COLOR}", listing.next_index, camera=camera, file=where)
    return tuple(CameraVideo(camera, f"{folder}/{camera}/{COLOR}", 0) for camera in cameras)


def _cameras_with_files(files: list[str]) -> set[str]:
    matches = [CAMERA_FILE.fullmatch(name) for name in files]
    return {match[1] for match in matches if match}


def _video_facts(listing: ListingBuilder, folder: str, videos: tuple[CameraVideo, ...]) -> VideoFacts:
    """By the first camera that can be opened, whose frames are the rows: the others run by themselves."""
    for video in videos:
        try:
            info = probe(listing.source.resolve(video.uri), listing.source.config.limits)
        except VideoError as e:
            listing.warn(e.reason, str(e), listing.next_index, camera=video.camera, file=video.uri)
        else:
            return VideoFacts(info.fps, info.num_frames)
    # A scene without any video has its finding already
    if videos:
        uris = [video.uri for video in videos]
        listing.unusable("no_video", f"no video can be opened: {named(uris)}", listing.next_index, file=uris[0])
    return VideoFacts()


def _metadata(listing: ListingBuilder, uri: str) -> dict[str, Any]:
    if uri in listing.source.files:
        return listing.read_object(uri, listing.next_index)
    detail = "there is no metadata.json, so whether it succeeded is not known"
    listing.warn("no_metadata", detail, listing.next_index, file=uri)
    return {}


def _state_found(listing: ListingBuilder, folder: str) -> StateFound:
    try:
        arrays = _arrays(listing.source, folder)
    except PickledError:
        return StateFound(is_pickled=True)
    except RowsError as e:
        detail = f"{e}; state and gripper are not used"
        listing.warn(e.reason, detail, listing.next_index, file=f"{folder}/{STATE}")
        return StateFound()
    return StateFound(len(arrays[0])) if arrays else StateFound()


def _by_rating(metadata: dict[str, Any]) -> Outcome | None:
    rating = metadata.get("rating")
    if type(rating) is not int or not 0 <= rating <= BEST:
        return None
    return Outcome(rating not in FAILED, "metadata rating")


def _task_texts(listing: ListingBuilder) -> dict[str, tuple[str, ...]]:
    """Instructions by task (`task_0001`), the English one first."""
    texts: dict[str, tuple[str, ...]] = {}
    for uri in listing.source.by_name.get(TASKS, []):
        for task, stored in listing.read_object(uri).items():
            by_language = stored if isinstance(stored, dict) else {TEXT_KEYS[0]: stored}
            texts[task] = tuple(texts_among(by_language.get(key) for key in TEXT_KEYS))
    return texts


# Arrays


def _arrays(source: Source, folder: str) -> list[np.ndarray]:
    """State, and the gripper where it is there; none without state. Raises as read_npy does."""
    state_uri, gripper_uri = f"{folder}/{STATE}", f"{folder}/{GRIPPER}"
    if state_uri not in source.files:
        return []
    arrays = [read_npy(source, uri) for uri in (state_uri, gripper_uri) if uri in source.files]
    if len({len(array) for array in arrays}) > 1:
        raise RowsError(f"{len(arrays[0])} rows of state, {len(arrays[1])} of the gripper", "length_differs")
    return arrays


def read_episode(source: Source, record: EpisodeRecord) -> Episode:
    """Rows, where they are plain arrays, and frames; raises RowsError when rows cannot be read."""
    state: np.ndarray | None = None
    names: list[str] = []
    if record.data_uri is not None:
        try:
            arrays = _arrays(source, record.source_id)
        except PickledError as e:
            raise RowsError(f"{e} is pickled", "pickled_data") from e
        state = joined(arrays)
        # Arrays that were replaced since cannot be matched with the frames
        if state is None or len(state) != record.num_rows:
            raise RowsError(f"{record.data_uri} has other rows than it had")
        if len(arrays) > 1:  # the gripper's first value is its width, in mm
            names = ["tcp"] * arrays[0].shape[1] + ["gripper_width"]
    return Episode(record, state, None, None, frames_of(source, record), tuple(names))
