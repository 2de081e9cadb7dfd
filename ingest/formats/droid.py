"""Adapter for DROID as recorded (the raw release): a folder per episode, with rows in HDF5 and a video per camera.

    <lab>/<success or failure>/<date>/<time>/
        trajectory.h5                           state and action, 15 rows a second
        recordings/MP4/<camera's serial>.mp4    one picture a row; <serial>-stereo.mp4 has both eyes beside each other
        metadata_<uuid>.json                    what the postprocessing knows: task, success, which camera is which
    aggregated-annotations-*.json               three instructions of each episode, by uuid, anywhere

Cameras are called as the metadata calls them: ext1, ext2 and wrist. Facts: the schema and the
readers of github.com/droid-dataset/droid (postprocessing/schema.py, trajectory_utils, read in
November 2026).
"""

import posixpath
import re
from collections.abc import Iterable, Mapping, Sequence
from itertools import product
from typing import Any

import h5py
import pyarrow as pa

from ingest.episode import EpisodeData, EpisodeRecord, Listing
from ingest.formats.folders import frames_of, is_video, object_of, videos_of
from ingest.formats.hdf5_file import find, opened, texts, value, values, walk
from ingest.formats.listing import (
    ListingBuilder,
    account_for_fields,
    in_order,
    texts_among,
    usual_uses,
)
from ingest.formats.tables import named_columns
from ingest.outcomes import OutcomeEvidence
from ingest.reasons import DataError, Limits
from ingest.sources.files import Source

ROWS = "trajectory.h5"
METADATA = re.compile(r"metadata_[^/]+\.json")
VIDEOS = "recordings/MP4/"
ANNOTATIONS = re.compile(r"(.*/)?aggregated-annotations[^/]*\.json")
FPS = 15.0  # of the controller: each row has one picture
ROBOT = "franka"
ROBOT_STATE = "observation/robot_state/"
STATE = (f"{ROBOT_STATE}joint_positions", f"{ROBOT_STATE}gripper_position")
ACTION = ("action/joint_position", "action/gripper_position")
ROLES = ("ext1", "ext2", "wrist")  # the main camera first
STEREO = "-stereo"
# What the recorder keeps besides: other measures of the arm, its clocks and its cameras
MEASURES = re.compile(
    r"(action/(robot_state/)?|observation/robot_state/)((prev_|target_)?(cartesian|joint|gripper)_(position|velocity)"
    r"|joint_(positions|velocities)|(prev_)?joint_torques_\w+|motor_torques_\w+|prev_\w+)"
    r"|observation/(timestamp|camera_(extrinsics|intrinsics|type)|controller_info)/.+"
)
METADATA_USES = {
    "uuid": ("instruction", "annotations are by it"),
    "current_task": ("instruction", "its name"),
    **{f"{role}_cam_serial": ("camera", "which camera is which") for role in ROLES},
}
METADATA_KNOWN = {
    **dict.fromkeys(
        ("lab", "user", "user_id", "date", "timestamp", "building"),
        "who recorded it, when and where",
    ),
    **dict.fromkeys(
        ("scene_id", "robot_serial", "droid_version", "r2d2_version"), "where and on what"
    ),
    **{f"{role}_cam_extrinsics": "where a camera stood" for role in ROLES},
    **{
        f"{role}_{kind}_path": "where its files are"
        for role, kind in product((*ROLES, "left", "right"), ("svo", "mp4"))
    },
    "hdf5_path": "where its files are",
    "trajectory_length": "the number of its rows",
}


def roots(uris: Iterable[str]) -> dict[str, str]:
    """Folders of episodes: with rows, and with a video or metadata as DROID calls them."""
    uris = list(uris)
    with_rows = {posixpath.dirname(uri) for uri in uris if posixpath.basename(uri) == ROWS}
    marked = {posixpath.dirname(uri) for uri in uris if METADATA.fullmatch(posixpath.basename(uri))}
    filmed = {
        uri.rpartition(VIDEOS)[0].rstrip("/") for uri in uris if VIDEOS in uri and is_video(uri)
    }
    return dict.fromkeys(with_rows & (marked | filmed), "")


def list_episodes(source: Source) -> Listing:
    listing = ListingBuilder(source)
    folders = sorted(roots(source.files))
    files: dict[str, list[str]] = {folder: [] for folder in folders}
    for uri in source.files:
        folder, in_videos, _ = f"/{uri}".partition(f"/{VIDEOS}")
        if not in_videos:
            folder = posixpath.dirname(f"/{uri}")
        files.get(folder.removeprefix("/"), []).append(uri)
    annotations = _annotations(listing)
    for folder in folders:
        _add(listing, folder, files[folder], annotations)
    cameras = in_order(listing.cameras_in_use(), source.config.cameras, ROLES)
    listing.find_missing(cameras, "no video of {}")
    return listing.listing(
        "droid", cameras, fps=source.config.fps or FPS, robot=ROBOT, nothing="no trajectory.h5"
    )


def _annotations(listing: ListingBuilder) -> dict[str, tuple[str, ...]]:
    """Instructions by the uuid of an episode."""
    instructions: dict[str, tuple[str, ...]] = {}
    for uri in listing.source.files:
        if ANNOTATIONS.fullmatch(uri):
            for uuid, stored in listing.read_object(uri).items():
                by_number = sorted(object_of(stored).items())
                instructions[uuid] = texts_among(text for _, text in by_number)
    return instructions


def _add(
    listing: ListingBuilder,
    folder: str,
    files: Sequence[str],
    annotations: Mapping[str, Sequence[str]],
) -> None:
    """Add one episode, with findings about it."""
    config = listing.source.config
    rows_uri = posixpath.join(folder, ROWS)
    metadata_uri = next((uri for uri in files if METADATA.fullmatch(posixpath.basename(uri))), "")
    metadata = listing.read_object(metadata_uri, listing.next_index)
    uses = {**METADATA_USES, **usual_uses(config)}
    account_for_fields(
        listing.parts, "metadata: ", metadata, uses, METADATA_KNOWN, file=metadata_uri
    )
    attributes, num_rows = _rows_listed(listing, rows_uri)
    facts = attributes | metadata

    cameras = _cameras(listing, [uri for uri in files if is_video(uri)], metadata)
    listing.add(
        folder or ".",
        listing.fps(FPS),
        tasks=_tasks(metadata_uri, facts, annotations),
        num_rows=num_rows,
        data_uri=rows_uri if num_rows or config.is_remote else None,
        videos=videos_of(
            listing, cameras, cameras or {"": posixpath.join(folder, f"{VIDEOS}*.mp4")}
        ),
        files=[rows_uri, metadata_uri],
        evidence=OutcomeEvidence(listing.stated_outcome(facts)),
        group=listing.group(facts),
        no_task="no current_task in its metadata, and no annotations of its uuid",
    )


def _tasks(
    metadata_uri: str, facts: Mapping[str, Any], annotations: Mapping[str, Sequence[str]]
) -> tuple[str, ...]:
    """The instructions of three people, which say more than the task that the operator was given; else that."""
    uuid = facts.get("uuid") or metadata_uri.rpartition("/metadata_")[2].removesuffix(".json")
    return texts_among(annotations.get(str(uuid), ())) or texts_among([facts.get("current_task")])


def _cameras(
    listing: ListingBuilder, uris: Iterable[str], metadata: Mapping[str, Any]
) -> dict[str, str]:
    """The video of each camera, by its role, else by its serial number."""
    roles = {str(metadata.get(f"{role}_cam_serial")): role for role in ROLES}
    videos: dict[str, str] = {}
    for uri in uris:
        serial = posixpath.splitext(posixpath.basename(uri))[0]
        camera = roles.get(serial, serial)
        if serial.endswith(STEREO):
            reason = "both eyes of a camera beside each other; one of them is read"
            listing.parts.known(
                "camera", roles.get(serial.removesuffix(STEREO), serial) + STEREO, reason, file=uri
            )
            listing.parts.known("file", f"*{STEREO}.mp4", reason)
            continue
        videos[camera] = uri
        listing.parts.used("camera", camera, "camera", "a video of its own", file=uri)
    listing.parts.known(
        "file", "*recordings/SVO/*", "what the cameras themselves recorded: the videos are of it"
    )
    order = in_order(videos, listing.source.config.cameras, ROLES)
    return {camera: videos[camera] for camera in order}


def _rows_listed(listing: ListingBuilder, uri: str) -> tuple[dict[str, Any], int | None]:
    """The file's attributes, and its number of rows; None where it cannot be read, and of a remote file."""
    source = listing.source
    if source.config.is_remote:
        return {}, None
    limits = source.config.limits
    try:
        with opened(source, uri) as file:
            attributes = {
                name: value(file, name, limits) for name in ("success", "current_task", "scene_id")
            }
            facts = {
                name: _plain(stored) for name, stored in attributes.items() if stored is not None
            }
            num_rows = _num_rows(file, source.config.keys.state or STATE)
            for path, dataset in walk(file, [], limits):
                _account_for_rows(listing, path, dataset, uri)
    except DataError as e:
        listing.warn_next(e.reason, f"{e}; its rows are not used", uri)
        return {}, None
    if num_rows is None:
        listing.warn_next(
            "no_data", f"no rows in {', '.join(source.config.keys.state or STATE)}", uri
        )
    return facts, num_rows


def _plain(stored: Any) -> Any:
    """An attribute's text, number or truth."""
    return next(iter(texts(stored)), None) or (stored.item() if hasattr(stored, "item") else stored)


def _account_for_rows(listing: ListingBuilder, path: str, dataset: h5py.Dataset, uri: str) -> None:
    keys = listing.source.config.keys
    parts = listing.parts
    form: dict[str, Any] = {
        "shape": (None, *(dataset.shape or ())[1:]),
        "dtype": str(dataset.dtype),
        "file": uri,
    }
    if path in (keys.state or STATE):
        parts.used("array", path, "state", "joints and gripper", **form)
    elif path in (keys.action or ACTION):
        parts.used("array", path, "action", "joints and gripper", **form)
    elif MEASURES.fullmatch(path) and dataset.dtype.kind in "fiub":
        # One line for each group: there are some sixty
        group = posixpath.dirname(path)
        reason = "DROID's other measures; keys.state or keys.action of an entry reads them"
        parts.known("array", f"{group}/*", reason, file=uri)
    else:
        parts.unknown("array", path, "DROID's recorder has none of this name", **form)


def _num_rows(file: h5py.File, paths: Iterable[str]) -> int | None:
    tables = (find(file, path) for path in paths)
    return next((t.shape[0] for t in tables if isinstance(t, h5py.Dataset) and t.shape), None)


def read_episode(source: Source, record: EpisodeRecord) -> EpisodeData:
    """Joints and gripper of state and action, and frames. Raises DataError when the rows cannot be read."""
    frames = frames_of(source, record)
    if record.data_uri is None:
        return EpisodeData(record, None, None, None, frames)
    keys = source.config.keys
    limits = source.config.limits
    with opened(source, record.data_uri) as file:
        state = _vector(file, keys.state or STATE, limits)
        action = _vector(file, keys.action or ACTION, limits)
    return EpisodeData(record, state, action, None, frames)


def _vector(file: h5py.File, paths: Sequence[str], limits: Limits) -> pa.Table | None:
    """Some datasets side by side, named by the last part of their path; None for none. Raises DataError."""
    tables = {path: find(file, path) for path in paths}
    return named_columns(
        (posixpath.basename(path), values(table, limits).reshape(table.shape[0], -1))
        for path, table in tables.items()
        if isinstance(table, h5py.Dataset) and table.shape
    )
