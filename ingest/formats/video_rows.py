"""Rows of numbers that lie beside plain videos, as NumPy arrays of as many rows as the video has frames.

    <name>.npz, <name>.npy              beside <name>.mp4: arrays by name, or one array
    <name>_actions.npy, ...             a word behind the video's name says what they are
    actions.npy, states.npz, ...        in a folder that holds one episode

The name of an array says whether it is of the state or of the action (the registry's `keys` overrule it). The only
array of an episode, without a name that says so, is taken as the action: that says nothing wrong of where the arm was.
"""

import hashlib
import posixpath
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import pyarrow as pa

from ingest.formats.arrays import read_npy, read_npz
from ingest.formats.folders import is_video, probed
from ingest.formats.listing import ListingBuilder
from ingest.formats.numbers import numbered, numbers, side_by_side
from ingest.media.frames import VideoError
from ingest.reasons import DataError
from ingest.registry import Keys
from ingest.signals.gripper import Column
from ingest.signals.naming import words
from ingest.sources.files import Source

ARRAY_SUFFIXES = (".npz", ".npy")
FOLDERS = "files of numbers and videos by folder"  # of a source: looked for once
ACTION_WORDS = {"action", "actions", "command", "commands", "cmd", "control", "ctrl", "target"}
STATE_WORDS = {
    "state", "states", "qpos", "proprio", "proprioception", "observation", "obs", "joint", "joints", "position",
    "positions", "pose", "poses", "eef", "ee", "tcp", "gripper", "grippers", "hand", "hands",
}  # fmt: skip
SEPARATORS = "_-."


class _Array(NamedTuple):
    uri: str
    name: str  # in its file, or what the file's name says; "" for neither
    column: Column | None  # None: nothing says it
    values: np.ndarray  # [n, d]


def with_rows(listing: ListingBuilder) -> tuple[str, ...]:
    """Give the last episode the rows beside its videos, with a finding where they do not fit; the files they are in."""
    source, record = listing.source, listing.records[-1]
    videos = [video.uri for video in record.videos]
    uris = array_files(source, videos)
    if not uris:
        return ()
    stamp = f"{record.source_stamp} {source.stamp(list(uris), None)}"
    listing.change_last(source_stamp=hashlib.sha256(stamp.encode()).hexdigest()[:16])
    # By the first video whose header says it; a finding about others comes when they are decoded
    infos = (probed(source, uri) for uri in videos)
    counts = (info.num_frames for info in infos if not isinstance(info, VideoError) and info.num_frames is not None)
    num_frames = record.num_rows or next(counts, None)
    try:
        _, _, files = read_rows(source, videos, num_frames)
    except DataError as e:
        listing.warn(e.reason, f"{e}; its rows are not used", record.episode_index, file=uris[0])
        return ()
    listing.change_last(num_rows=num_frames, data_uri=files[0])
    return files


# Which files


def array_files(source: Source, videos: Sequence[str]) -> tuple[str, ...]:
    """The uris of arrays that belong to an episode of these videos, in order."""
    if FOLDERS not in source.noted:
        folders: dict[str, tuple[list[str], list[str]]] = {}  # arrays and videos of each
        source.noted[FOLDERS] = folders
        for uri in source.files:
            arrays, filmed = folders.setdefault(posixpath.dirname(uri), ([], []))
            if uri.lower().endswith(ARRAY_SUFFIXES):
                arrays.append(uri)
            elif is_video(uri):
                filmed.append(uri)
    stems = [posixpath.splitext(uri)[0] for uri in videos]
    uris: list[str] = []
    for folder in dict.fromkeys(map(posixpath.dirname, videos)):
        arrays, filmed = source.noted[FOLDERS][folder]
        # Asked for each video of what may be a large folder
        is_alone = len(filmed) <= len(videos) and set(filmed) <= set(videos)
        uris += [uri for uri in arrays if _belongs(uri, stems, is_alone)]
    return tuple(uris)


def _belongs(uri: str, stems: Sequence[str], is_alone: bool) -> bool:
    """Has a file the name of one of an episode's videos (without suffixes), with a word that says what it holds?

    In a folder of one episode the word alone is enough.
    """
    label = _label(uri, stems)
    if label is None:
        parts = words(posixpath.basename(posixpath.splitext(uri)[0]))
        return is_alone and bool(parts) and {*parts} <= ACTION_WORDS | STATE_WORDS
    return not label or _says(label) is not None


def _label(uri: str, stems: Sequence[str]) -> str | None:
    """What a file's name says behind that of a video; None for a file with another name.

    Example: _label("a/run_1_actions.npy", ["a/run_1"]) == "actions".
    """
    stem = posixpath.splitext(uri)[0]
    behind = [stem.removeprefix(video) for video in stems if stem.startswith(video)]
    labels = [rest.strip(SEPARATORS) for rest in behind if not rest or rest[0] in SEPARATORS]
    return min(labels, key=len, default=None)


def _says(name: str) -> Column | None:
    """What an array of this name is of."""
    parts = words(name)
    if not ACTION_WORDS.isdisjoint(parts):
        return "action"
    return None if STATE_WORDS.isdisjoint(parts) else "state"


# What is in them


def read_rows(
    source: Source, videos: Sequence[str], num_frames: int | None
) -> tuple[pa.Table | None, pa.Table | None, tuple[str, ...]]:
    """State, action and the files that they are in. Raises DataError where no array has as many rows as frames."""
    arrays = list(_arrays(source, videos))
    # The only one, where nothing says what it is, is the action
    if len(arrays) == 1 and arrays[0].column is None:
        arrays = [arrays[0]._replace(column="action", name=arrays[0].name or "action")]
    tables: dict[str | None, list[pa.Table]] = {"state": [], "action": []}
    files: dict[str, None] = {}
    for uri, name, column, values in arrays:
        if column and len(values) == num_frames:
            width, name, files[uri] = values.shape[1], name or column, None
            tables[column].append(numbers(values, [name] if width == 1 else numbered(name, width)))
    if not files:
        lengths = " or ".join(map(str, sorted({len(array.values) for array in arrays if array.column}))) or "no"
        frames = "an unknown number of" if num_frames is None else num_frames
        raise DataError(f"{lengths} rows for {frames} frames", "length_differs")
    return side_by_side(tables["state"]), side_by_side(tables["action"]), tuple(files)


def _arrays(source: Source, videos: Sequence[str]) -> Iterator[_Array]:
    """All arrays of an episode. Raises DataError."""
    keys = source.config.keys
    stems = [posixpath.splitext(uri)[0] for uri in videos]
    for uri in array_files(source, videos):
        found = _label(uri, stems)
        label = posixpath.basename(posixpath.splitext(uri)[0]) if found is None else found
        stored = read_npz(source, uri) if uri.lower().endswith(".npz") else {"": read_npy(source, uri)}
        for key, values in stored.items():
            name = label if key.startswith("arr_") or not key else key
            yield _Array(uri, name, _column(key, keys) or _column(label, keys), values)


def _column(name: str, keys: Keys) -> Column | None:
    """What an array is of, as the registry says, else its name."""
    if name in keys.state:
        return "state"
    if name in keys.action:
        return "action"
    said = _says(name)
    # Of a column that the registry speaks of there are no others
    is_stated = bool(keys.state if said == "state" else keys.action)
    return None if is_stated else said
