"""Adapter for recordings of Unitree's xr_teleoperate: a folder each, with rows in data.json and pictures beside it.

    episode_0000/data.json    info (image: fps), text (goal, desc, steps), data: a row for each picture
    episode_0000/colors/      000000_color_0.jpg, ...; depths/ and audios/ are left out

A row has `states` and `actions` by part of the robot (left_arm, right_ee, ...), each with `qpos`, and names its
pictures in `colors`. An `ee` or `hand` of one or two values is a gripper.
"""

import posixpath
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import pyarrow as pa

from ingest.episode import CameraVideo, EpisodeData, EpisodeRecord, Listing, TimedPicture, timed
from ingest.formats.folders import object_of
from ingest.formats.listing import ListingBuilder, in_order, texts_among
from ingest.formats.row_pictures import PICTURE_SUFFIXES, pictures_of
from ingest.formats.side_files import read_json
from ingest.formats.tables import numbered, numbers, rate_of, side_by_side
from ingest.media.frames import DECODE_ALL, DecodeOptions, VideoError
from ingest.reasons import DataError
from ingest.signals.naming import MIN_HAND_JOINTS
from ingest.sources.files import Source

ROWS, COLORS = "data.json", "colors"
ENDS = ("ee", "hand")  # last word of the part that is a gripper or a hand
VECTORS = {"states": "state", "actions": "action"}
KNOWN_FILES = {"depths": "depth: labels are made by colour pictures", "audios": "sound"}


def roots(uris: Iterable[str]) -> dict[str, str]:
    """Folders of recordings, which lie above those with rows and pictures."""
    uris = list(uris)
    with_rows = {posixpath.dirname(uri) for uri in uris if posixpath.basename(uri) == ROWS}
    pictured = {posixpath.dirname(uri) for uri in uris if uri.lower().endswith(PICTURE_SUFFIXES)}
    shown = {
        posixpath.dirname(folder) for folder in pictured if posixpath.basename(folder) == COLORS
    }
    return {posixpath.dirname(folder): "" for folder in with_rows & shown}


def list_episodes(source: Source) -> Listing:
    listing = ListingBuilder(source)
    for uri in sorted(uri for uri in source.files if posixpath.basename(uri) == ROWS):
        try:
            _add(listing, uri, read_json(source, uri))
        except DataError as e:
            listing.add_lost(e, posixpath.dirname(uri) or ".", uri)
    for folder, reason in KNOWN_FILES.items():
        listing.parts.known("file", f"*{folder}/*", reason)
    listing.parts.known("file", f"*{COLORS}/*", "pictures that rows name")
    cameras = in_order(listing.cameras_in_use(), source.config.cameras)
    listing.find_missing(cameras, "no picture of {}")
    return listing.listing("xr_teleoperate", cameras, robot="unitree", nothing=f"no {ROWS}")


def _add(listing: ListingBuilder, uri: str, content: Any) -> None:
    """The coming episode. Raises DataError."""
    rows = _rows(content, uri)
    folder = posixpath.dirname(uri)
    text, info = (object_of(content.get(name)) for name in ("text", "info"))
    image = object_of(info.get("image"))
    for column, use in VECTORS.items():
        for part, values in _parts(rows, column, uri):
            form = {"shape": (None, values.shape[1]), "dtype": "float64", "file": uri}
            listing.parts.used(
                "array", f"{column}/{part}", use, "xr_teleoperate keeps it there", **form
            )
    listing.parts.used("text", "text: goal", "instruction", "its name", file=uri)
    for name in text.keys() - {"goal"}:
        listing.parts.known("text", f"text: {name}", "the goal in other words", file=uri)
    cameras = dict.fromkeys(c for row in rows for c in object_of(row.get(COLORS)))
    if not cameras:
        listing.unusable_next("no_video", f"no row of {uri} names a picture", uri)
    listing.add(
        folder or ".",
        listing.fps(rate_of(image.get("fps"))),
        tasks=texts_among([text.get("goal")]),
        num_rows=len(rows),
        data_uri=uri,
        videos=[CameraVideo(camera, posixpath.join(folder, COLORS), 0) for camera in cameras],
        no_task="no text.goal",
    )


def _rows(content: Any, uri: str) -> list[dict[str, Any]]:
    rows = object_of(content).get("data")
    if not isinstance(rows, list) or not rows:
        raise DataError(f"{uri} has no rows in `data`", "no_data")
    return [object_of(row) for row in rows]


def _parts(rows: list[dict[str, Any]], column: str, uri: str) -> Iterator[tuple[str, np.ndarray]]:
    """The parts of states or actions that have joints, float64 [n, d], NaN in rows that lack them. Raises DataError."""
    for part in dict.fromkeys(part for row in rows for part in object_of(row.get(column))):
        stored = [object_of(object_of(row.get(column)).get(part)).get("qpos") or [] for row in rows]
        width = max(map(len, stored))
        if {*map(len, stored)} - {0, width}:
            raise DataError(f"{uri}: {column}/{part} has rows of different length")
        try:
            values = np.array([row or [np.nan] * width for row in stored], np.float64)
        except (TypeError, ValueError) as e:
            raise DataError(f"{uri}: {column}/{part} holds more than numbers") from e
        if width:
            yield part, values


def _vector(rows: list[dict[str, Any]], column: str, uri: str) -> pa.Table | None:
    tables = []
    for part, values in _parts(rows, column, uri):
        arm, _, last = part.rpartition("_")
        width = values.shape[1]
        kind = "hand" if width >= MIN_HAND_JOINTS else "gripper"
        name = f"{arm}_{kind}" if last in ENDS else part
        tables.append(numbers(values, [name] if width == 1 else numbered(name, width)))
    return side_by_side(tables)


def read_episode(source: Source, record: EpisodeRecord) -> EpisodeData:
    """Joints of all parts, and pictures as the rows name them. Raises DataError."""
    uri = record.data_uri or ""
    rows = _rows(read_json(source, uri), uri)

    def frames(camera: str, options: DecodeOptions = DECODE_ALL) -> Iterator[TimedPicture]:
        names = [object_of(row.get(COLORS)).get(camera) for row in rows]
        uris = [posixpath.join(posixpath.dirname(uri), str(name)) for name in names]
        if lacking := [k for k, picture in enumerate(uris) if picture not in source.files]:
            raise VideoError(f"row {lacking[0]} of {uri} has no picture of {camera}")
        yield from timed(pictures_of(source, uris), record.fps)

    state, action = (_vector(rows, column, uri) for column in VECTORS)
    return EpisodeData(record, state, action, None, frames)
