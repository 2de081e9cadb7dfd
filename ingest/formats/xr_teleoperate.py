"""Adapter for recordings of Unitree's xr_teleoperate: a folder each, with rows in data.json and pictures beside it.

    episode_0000/data.json    info (image: fps), text (goal, desc, steps), data: a row for each picture
    episode_0000/colors/      000000_color_0.jpg, ...; depths/ and audios/ are left out

A row has `states` and `actions` by part of the robot (left_arm, right_ee, ...), each with `qpos`, and names its
pictures in `colors`. An `ee` or `hand` of one or two values is a gripper.
"""

import posixpath
from collections.abc import Collection, Iterable, Iterator
from itertools import chain
from typing import Any

import numpy as np

from ingest.episode import (
    DECODE_ALL,
    DecodeOptions,
    EpisodeData,
    EpisodeRecord,
    Listing,
    TimedPicture,
    VideoError,
    timed,
)
from ingest.formats.folders import object_of, videos_of
from ingest.formats.listing import ListingBuilder, account_for_fields, in_order, texts_among
from ingest.formats.row_pictures import PICTURE_SUFFIXES, pictures_of
from ingest.formats.side_files import read_json
from ingest.formats.tables import rate_of, stated_vectors
from ingest.formats.tree import Part
from ingest.formats.tree_reader import ArrayTree, read_arrays
from ingest.formats.writers import XR_TELEOPERATE
from ingest.reasons import DataError
from ingest.registry import Keys
from ingest.sources.files import Source

ROWS, COLORS = "data.json", "colors"
VECTORS = ("states", "actions")

Row = dict[str, Any]


def roots(uris: Iterable[str]) -> dict[str, str]:
    """Folders of recordings, which lie above those with rows and pictures."""
    return {posixpath.dirname(posixpath.dirname(uri)): "" for uri in _recordings([*uris])}


def _recordings(uris: Collection[str]) -> list[str]:
    """Files of rows that have pictures beside them."""
    folders = {posixpath.dirname(uri) for uri in uris if uri.lower().endswith(PICTURE_SUFFIXES)}
    with_pictures = {posixpath.join(posixpath.dirname(folder), ROWS) for folder in folders}
    return sorted(uri for uri in uris if uri in with_pictures)


def list_episodes(source: Source) -> Listing:
    listing = ListingBuilder(source)
    for uri in _recordings(source.files):
        try:
            _add(listing, uri, object_of(read_json(source, uri)))
        except DataError as e:
            listing.add_lost(e, posixpath.dirname(uri) or ".", uri)
    cameras = in_order(listing.cameras_in_use(), source.config.cameras)
    listing.find_missing(cameras, "no picture of {}")
    return listing.listing("xr_teleoperate", cameras, robot="unitree", nothing=f"no {ROWS}")


def _add(listing: ListingBuilder, uri: str, content: Row) -> None:
    """The coming episode. Raises DataError."""
    rows = _rows(content, uri)
    _tree(rows, uri, listing.source.config.keys).account(listing.parts)
    text, info = (object_of(content.get(name)) for name in ("text", "info"))
    uses = {"goal": ("instruction", "its name")}
    account_for_fields(listing.parts, "text: ", text, uses, XR_TELEOPERATE, file=uri)
    cameras = dict.fromkeys(chain.from_iterable(object_of(row.get(COLORS)) for row in rows))
    folder = posixpath.dirname(uri)
    files = dict.fromkeys(cameras, posixpath.join(folder, COLORS))
    listing.add(
        folder or ".",
        listing.fps(rate_of(object_of(info.get("image")).get("fps"))),
        tasks=texts_among([text.get("goal")]),
        num_rows=len(rows),
        data_uri=uri,
        videos=videos_of(listing, files, files or {"": posixpath.join(folder, COLORS)}),
        no_task="no text.goal",
    )


def _rows(content: Any, uri: str) -> list[Row]:
    rows = object_of(content).get("data")
    if not isinstance(rows, list) or not rows:
        raise DataError(f"{uri} has no rows in `data`", "no_data")
    return list(map(object_of, rows))


def _tree(rows: list[Row], uri: str, keys: Keys) -> ArrayTree:
    """Of the parts of states and actions. Raises DataError."""
    arrays = dict(chain.from_iterable(_joints(rows, column, uri) for column in VECTORS))
    described = {path: Part(path, file=uri) for path in arrays}
    return ArrayTree(arrays, described, keys, XR_TELEOPERATE)


def _joints(rows: list[Row], column: str, uri: str) -> Iterator[tuple[str, np.ndarray]]:
    """Those of each part that has some, float64 [n, d], NaN in rows that lack them. Raises DataError."""
    of_rows = [object_of(row.get(column)) for row in rows]
    for part in dict.fromkeys(chain.from_iterable(of_rows)):
        stored = [object_of(of_row.get(part)).get("qpos") for of_row in of_rows]
        if (values := stated_vectors(stored, f"{uri}: {column}/{part}")) is not None:
            yield f"{column}/{part}", values


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

    return read_arrays(record, lambda: _tree(rows, uri, source.config.keys), frames)
