"""Rows of numbers that lie beside plain videos, as NumPy arrays of as many rows as the video has frames.

    <name>.npz, <name>.npy              beside <name>.mp4: arrays by name, or one array
    <name>_actions.npy, ...             a word behind the video's name says what they are
    actions.npy, states.npz, ...        in a folder that holds one episode

The name of an array says whether it is of the state or of the action (the registry's `keys` overrule it). The only
array of an episode, without a name that says so, is taken as the action: that says nothing wrong of where the arm was.
"""

import hashlib
import posixpath
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np

from ingest.episode import EpisodeRecord, RowsError
from ingest.formats.arrays import PickledError, read_npy, read_npz
from ingest.formats.listing import ListingBuilder
from ingest.formats.proprio import joined
from ingest.media.video import VIDEO_SUFFIXES, VideoError, probe
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


class _Folder(NamedTuple):
    arrays: list[str]  # uris
    videos: list[str]


class _Array(NamedTuple):
    uri: str
    name: str  # in its file, or what the file's name says; "" for neither
    column: Column | None  # None: nothing says it
    values: np.ndarray  # [n, d]


@dataclass(frozen=True)
class VideoRows:
    """State and action of one episode, float64 [n, d], with a name per dimension; None where it has none."""

    state: np.ndarray | None
    action: np.ndarray | None
    state_names: tuple[str, ...]
    action_names: tuple[str, ...]
    files: tuple[str, ...]  # that they were read from


def with_rows(listing: ListingBuilder, record: EpisodeRecord) -> tuple[EpisodeRecord, tuple[str, ...]]:
    """A record with the rows beside its videos, and the files that they are in; findings for those that do not fit."""
    source = listing.source
    videos = [video.uri for video in record.videos]
    uris = array_files(source, videos)
    if not uris:
        return record, ()
    stamp = f"{record.source_stamp} {source.stamp(list(uris), None)}"
    stamped = replace(record, source_stamp=hashlib.sha256(stamp.encode()).hexdigest()[:16])
    num_frames = record.num_rows or _num_frames(source, videos)
    try:
        rows = read_rows(source, videos, num_frames)
    except RowsError as e:
        listing.warn(e.reason, f"{e}; its rows are not used", record.episode_index, file=uris[0])
        return stamped, ()
    return replace(stamped, num_rows=num_frames, data_uri=rows.files[0]), rows.files


def _num_frames(source: Source, videos: Sequence[str]) -> int | None:
    """By the first video whose header says it."""
    for uri in videos:
        try:
            num_frames = probe(source.resolve(uri), source.config.limits).num_frames
        except VideoError:
            continue  # its finding comes when it is decoded
        if num_frames is not None:
            return num_frames
    return None


# Which files


def array_files(source: Source, videos: Sequence[str]) -> tuple[str, ...]:
    """The uris of arrays that belong to an episode of these videos, in order."""
    if FOLDERS not in source.noted:
        source.noted[FOLDERS] = _by_folder(source.files)
    folders: dict[str, _Folder] = source.noted[FOLDERS]
    stems = [_stem(uri) for uri in videos]
    uris = []
    for folder in dict.fromkeys(map(posixpath.dirname, videos)):
        inside = folders[folder]
        # Asked for each video of what may be a large folder
        is_alone = len(inside.videos) <= len(videos) and set(inside.videos) <= set(videos)
        uris += [uri for uri in inside.arrays if _belongs(uri, stems, is_alone)]
    return tuple(uris)


def _by_folder(uris: Iterable[str]) -> dict[str, _Folder]:
    folders: dict[str, _Folder] = {}
    for uri in uris:
        inside = folders.setdefault(posixpath.dirname(uri), _Folder([], []))
        if uri.lower().endswith(ARRAY_SUFFIXES):
            inside.arrays.append(uri)
        elif uri.lower().endswith(VIDEO_SUFFIXES):
            inside.videos.append(uri)
    return folders


def _stem(uri: str) -> str:
    return posixpath.splitext(uri)[0]


def _belongs(uri: str, stems: Sequence[str], is_alone: bool) -> bool:
    """Has a file the name of one of an episode's videos (without suffixes), with a word that says what it holds?

    In a folder of one episode the word alone is enough.
    """
    label = _label(uri, stems)
    if label is None:
        parts = words(posixpath.basename(_stem(uri)))
        return is_alone and bool(parts) and {*parts} <= ACTION_WORDS | STATE_WORDS
    return not label or _says(label) is not None


def _label(uri: str, stems: Sequence[str]) -> str | None:
    """What a file's name says behind that of a video; None for a file with another name.

    Example: _label("a/run_1_actions.npy", ["a/run_1"]) == "actions".
    """
    stem = _stem(uri)
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


def read_rows(source: Source, videos: Sequence[str], num_frames: int | None) -> VideoRows:
    """Raises RowsError where no array has as many rows as there are frames."""
    arrays = _with_columns(list(_arrays(source, videos)))
    fitting = [array for array in arrays if len(array.values) == num_frames]
    if not fitting:
        lengths = sorted({len(array.values) for array in arrays})
        frames = "an unknown number of" if num_frames is None else num_frames
        raise RowsError(f"{' or '.join(map(str, lengths)) or 'no'} rows for {frames} frames", "length_differs")
    state, state_names = _side_by_side(fitting, "state")
    action, action_names = _side_by_side(fitting, "action")
    files = tuple(dict.fromkeys(array.uri for array in fitting))
    return VideoRows(state, action, state_names, action_names, files)


def _arrays(source: Source, videos: Sequence[str]) -> Iterator[_Array]:
    """All arrays of an episode. Raises RowsError."""
    keys = source.config.keys
    stems = [_stem(uri) for uri in videos]
    for uri in array_files(source, videos):
        label = _label(uri, stems)
        if label is None:
            label = posixpath.basename(_stem(uri))
        try:
            stored = read_npz(source, uri) if uri.lower().endswith(".npz") else {"": read_npy(source, uri)}
        except PickledError as e:
            raise RowsError(f"{e} is pickled", "pickled_data") from e
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


def _with_columns(arrays: Sequence[_Array]) -> list[_Array]:
    """Those that are of the state or the action; the only one, where nothing says it, is the action."""
    if len(arrays) == 1 and arrays[0].column is None:
        return [arrays[0]._replace(column="action", name=arrays[0].name or "action")]
    return [array for array in arrays if array.column is not None]


def _side_by_side(arrays: Sequence[_Array], column: Column) -> tuple[np.ndarray | None, tuple[str, ...]]:
    """The arrays of a column, float64 [n, d], and a name per dimension."""
    own = [array for array in arrays if array.column == column]
    names: list[str] = []
    for array in own:
        width, name = array.values.shape[1], array.name or column
        names += [name] if width == 1 else [f"{name}.{k}" for k in range(width)]
    return joined([array.values for array in own]), tuple(names)
