"""Adapter for RH20T as released: a folder per scene with one video per camera, and the scene's rating.

State, and when each frame was taken, are in pickled dictionaries (rh20t_api loads them so). A pickle can run code, so
they are not read: state is there only where someone has stored it as plain arrays.
"""

import posixpath
import re
from collections import defaultdict
from collections.abc import Iterable
from functools import partial

from ingest.episode import CameraVideo, EpisodeData, EpisodeRecord, Listing, SourcePart
from ingest.formats.folders import frames_of, object_of, probed, videos_of
from ingest.formats.listing import (
    ListingBuilder,
    account_for_fields,
    folders_of,
    named,
    scene_first,
    texts_among,
)
from ingest.formats.tables import read_npy
from ingest.formats.tree import ALL_ROWS, Part, Uses
from ingest.formats.tree_reader import ArrayTree, read_arrays, vector_of
from ingest.formats.writers import RH20T
from ingest.outcomes import Outcome, OutcomeEvidence
from ingest.reasons import DataError
from ingest.sources.files import Source

SCENE = re.compile(r"((?:.*/)?(task_[0-9]+)_user_[0-9]+_scene_[0-9]+_cfg_[0-9]+(_human)?)/(.+)")
CAMERA_FILE = re.compile(r"(cam_[^/]+)/.+")
COLOR = "color.mp4"
[STATE, GRIPPER] = RH20T.state[0]
TASKS = "task_description.json"
TEXT_KEYS = ("task_description_english", "task_description_chinese")
# Arrays of a scene, as RH20T publishes them
NO_DICTIONARIES = "pickled dictionaries, which are not read"
PICKLED_STATE = (
    "state and gripper of {} episodes are pickled, so these have pictures and texts only"
)
PICKLED = (
    "transformed/force_torque",
    "transformed/force_torque_base",
    "transformed/gripper",
    "transformed/high_freq_data",
    "transformed/joint",
    "transformed/tcp",
    "transformed/tcp_base",
    "timestamps",
)
DEFAULT_FPS = 10.0  # at which the cameras were recorded
# 0 emergency stop, 1 failed, 2 to 9 how well it went; as metadata has them, whole numbers and nothing else
RATINGS = {str(rating): Outcome(rating > 1, "metadata rating") for rating in range(10)}


def roots(uris: Iterable[str]) -> dict[str, str]:
    """The folders that hold scenes: that of one robot's configuration."""
    return {posixpath.dirname(scene): "" for scene in folders_of(SCENE, uris)}


def list_episodes(source: Source) -> Listing:
    listing = ListingBuilder(source)
    scenes: dict[str, list[str]] = defaultdict(list)  # of a robot: paths below the scene's folder
    human: dict[str, None] = {}  # folders that show a person at the task
    for match in filter(None, map(SCENE.fullmatch, source.files)):
        if match[3]:
            human[match[1]] = None
        else:
            scenes[match[1]].append(match[4])
    texts = _task_texts(listing)
    for folder in sorted(scenes):
        _add_scene(listing, folder, scenes[folder], texts)
    # What is so for many scenes is said once
    if human:
        detail = (
            f"{len(human)} folders ({min(human)}, ...) show a person at the task; they are left out"
        )
        listing.warn("human_demonstration", detail)
    if listing.counts["pickled_data", PICKLED_STATE]:
        for name in PICKLED:
            listing.parts.add(SourcePart("file", f"*{name}.npy", "known", "", NO_DICTIONARIES))
    return listing.listing(
        "rh20t",
        scene_first(listing.cameras_in_use(), source.config.cameras),
        nothing="no folder task_*_user_*_scene_*_cfg_* of a robot",
    )


def _add_scene(
    listing: ListingBuilder, folder: str, files: list[str], texts: dict[str, tuple[str, ...]]
) -> None:
    """Add one scene's episode."""
    source = listing.source
    state_uri = f"{folder}/{STATE}"
    metadata_uri = f"{folder}/metadata.json"
    fps, num_frames, videos = _videos(listing, folder, files)
    metadata = listing.read_object(metadata_uri, listing.next_index)
    if metadata_uri not in source.files:
        detail = "there is no metadata.json, so whether it succeeded is not known"
        listing.warn_next("no_metadata", detail, metadata_uri)
    # A scene's folder is called task_0001_user_...: texts are by the first part of it
    tasks = texts.get(folder.rpartition("/")[2][: len("task_0000")], ())
    if not tasks:
        listing.warn_next("no_task", f"no text for it in {TASKS}", folder)

    has_state = _has_state(listing, folder, state_uri, num_frames)
    rating = {"rating": ("outcome", "its name")}
    listing.account_for_facts("metadata.json: ", metadata, rating, RH20T, metadata_uri)
    listing.add(
        folder,
        source.config.fps or fps,
        tasks=tasks,
        num_rows=num_frames,
        data_uri=state_uri if has_state else None,
        videos=videos,
        evidence=OutcomeEvidence(
            listing.stated_outcome(metadata) or RATINGS.get(repr(metadata.get("rating")))
        ),
        group=listing.group(metadata),
        # Files that are not there are named too, so that the stamp changes when one comes
        files=[metadata_uri, state_uri, f"{folder}/{GRIPPER}"],
    )


def _has_state(listing: ListingBuilder, folder: str, uri: str, num_frames: int | None) -> bool:
    """Is a state with a row for each frame of the coming scene there? One that is pickled is not read."""
    try:
        tree = _tree(listing.source, folder)
        num_states = len(vector_of(tree, "state", tree.roles(), ALL_ROWS) or ())
    except DataError as e:
        if e.reason == "pickled_data":
            listing.count("pickled_data", PICKLED_STATE)
        else:
            listing.warn_next(e.reason, f"{e}; state and gripper are not used", uri)
        return False
    if num_states not in (0, num_frames):
        listing.warn_next(
            "length_differs", f"{num_states} states for {num_frames} frames; state is not used", uri
        )
    is_there = num_states == num_frames and num_states > 0
    if is_there:
        tree.account(listing.parts)
    return is_there


def _videos(
    listing: ListingBuilder, folder: str, files: list[str]
) -> tuple[float, int | None, tuple[CameraVideo, ...]]:
    """Rate, frames and videos of the coming scene; frames by the first camera that can be opened: others run freely."""
    declared = folders_of(CAMERA_FILE, files)  # may have no colours
    cameras = scene_first(declared, listing.source.config.cameras)
    expected = {camera: f"{folder}/{camera}/{COLOR}" for camera in cameras} or {
        "": f"{folder}/cam_*/{COLOR}"
    }
    present_uris = {camera: uri for camera, uri in expected.items() if uri in listing.source.files}
    videos = videos_of(listing, present_uris, expected)
    for camera, uri in ((video.camera, video.uri) for video in videos):
        info = probed(listing.source, uri)
        if not isinstance(info, DataError):
            return info.fps, info.num_frames, videos
        listing.warn_next(info.reason, str(info), uri, camera)
    # A scene without any video has its finding already
    if videos:
        uris = [video.uri for video in videos]
        listing.unusable_next("no_video", f"no video can be opened: {named(uris)}", uris[0])
    return DEFAULT_FPS, None, videos


def _task_texts(listing: ListingBuilder) -> dict[str, tuple[str, ...]]:
    """Instructions by task (`task_0001`), the English one first."""
    texts: dict[str, tuple[str, ...]] = {}
    for uri in listing.source.by_name.get(TASKS, []):
        for task, stored in listing.read_object(uri).items():
            by_language = object_of(stored) or {TEXT_KEYS[0]: stored}
            texts_by: Uses = dict.fromkeys(TEXT_KEYS, ("instruction", "its name"))
            account_for_fields(listing.parts, f"{TASKS}: ", by_language, texts_by, file=uri)
            texts[task] = texts_among(by_language.get(key) for key in TEXT_KEYS)
    return texts


def _tree(source: Source, folder: str) -> ArrayTree:
    """State, and with it the gripper, as far as they are there. Raises DataError."""
    uris = {path: f"{folder}/{path}" for path in (STATE, GRIPPER)}
    paths = [path for path in uris if uris[path] in source.files and uris[STATE] in source.files]
    arrays = {path: read_npy(source, uris[path]) for path in paths}
    if len({*map(len, arrays.values())}) > 1:
        detail = f"{len(arrays[STATE])} rows of state, {len(arrays[GRIPPER])} of the gripper"
        raise DataError(detail, "length_differs")
    described = {}
    for path, values in arrays.items():
        names = ["tcp" if GRIPPER in arrays else ""] * values.shape[1]
        # The gripper's first value is its width, in mm
        if path == GRIPPER:
            names = ["gripper_width", *[""] * (values.shape[1] - 1)]
        described[path] = Part(path, file=uris[path], names=names)
    return ArrayTree(arrays, described, source.config.keys, RH20T)


def read_episode(source: Source, record: EpisodeRecord) -> EpisodeData:
    """Rows, where they are plain arrays, and frames; raises DataError when rows cannot be read."""
    tree = partial(_tree, source, record.source_id)
    return read_arrays(record, tree, frames_of(source, record))
