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
from functools import partial
from typing import Any

from ingest.episode import EpisodeData, EpisodeRecord, Listing
from ingest.formats.folders import frames_of, is_video, object_of, videos_of
from ingest.formats.hdf5_file import rows_in, texts
from ingest.formats.hdf5_parts import EpisodePlace, opened_place
from ingest.formats.listing import (
    ListingBuilder,
    in_order,
    texts_among,
)
from ingest.formats.tree import Uses, account
from ingest.formats.tree_reader import read_tree, why_known
from ingest.formats.writers import DROID, known_by
from ingest.reasons import DataError
from ingest.sources.files import Source

ROWS = "trajectory.h5"
METADATA = re.compile(r"metadata_[^/]+\.json")
VIDEOS = "recordings/MP4/"
ANNOTATIONS = re.compile(r"(.*/)?aggregated-annotations[^/]*\.json")
FPS = 15.0  # of the controller: each row has one picture
ROBOT = "franka"
STATE = DROID.state[0]
STATED = ("success", "current_task", "scene_id")  # by attributes of the rows
ROLES = ("ext1", "ext2", "wrist")  # the main camera first
STEREO = "-stereo"
METADATA_USES = {
    "uuid": ("instruction", "annotations are by it"),
    "current_task": ("instruction", "its name"),
    **{f"{role}_cam_serial": ("camera", "which camera is which") for role in ROLES},
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
    listing.account_for_facts("metadata: ", metadata, METADATA_USES, DROID, metadata_uri)
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
        facts=facts,
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
    serials = {posixpath.splitext(posixpath.basename(uri))[0]: uri for uri in uris}
    videos = {
        roles.get(serial, serial): uri
        for serial, uri in serials.items()
        if not serial.endswith(STEREO)
    }
    order = in_order(videos, listing.source.config.cameras, ROLES)
    return {camera: videos[camera] for camera in order}


def _rows_listed(listing: ListingBuilder, uri: str) -> tuple[dict[str, Any], int | None]:
    """The file's attributes, and its number of rows; None where it cannot be read, and of a remote file."""
    source = listing.source
    if source.config.is_remote:
        return {}, None
    try:
        with opened_place(source, uri, DROID) as place:
            facts = {n: _plain(stored) for n, stored in place.attributes.items() if n in STATED}
            roles = place.roles()
            tables = rows_in(place.group, roles.state.paths).values()
            _account_for_rows(listing, place, roles.uses)
    except DataError as e:
        listing.warn_next(e.reason, f"{e}; its rows are not used", uri)
        return {}, None
    num_rows = next((table.shape[0] for table in tables), None)
    if num_rows is None:
        listing.warn_next(
            "no_data", f"no rows in {', '.join(source.config.keys.state or STATE)}", uri
        )
    return facts, num_rows


def _plain(stored: Any) -> Any:
    """An attribute's text, number or truth."""
    return next(iter(texts(stored)), None) or (stored.item() if hasattr(stored, "item") else stored)


def _account_for_rows(listing: ListingBuilder, place: EpisodePlace, uses: Uses) -> None:
    """What each array of the rows is used for; one line for each group of other measures: there are some sixty."""
    parts = [
        part._replace(title=f"{posixpath.dirname(part.path)}/*")
        if part.path not in uses and known_by(DROID, part.path)
        else part
        for part in place.parts()
    ]
    why_left_out = partial(why_known, writer=DROID)
    account(listing.parts, parts, uses, why_left_out, "DROID's recorder has none of this name")


def read_episode(source: Source, record: EpisodeRecord) -> EpisodeData:
    """Joints and gripper of state and action, and frames. Raises DataError when the rows cannot be read."""
    opened = partial(opened_place, source, record.data_uri or "", DROID)
    return read_tree(record, opened, files=frames_of(source, record))
