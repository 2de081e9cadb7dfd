"""Adapter for Zarr replay buffers, as UMI and Diffusion Policy write them: all episodes' rows one after another.

Arrays of `data` have a row per frame; `meta/episode_ends` says at which row each episode ends. Arrays of pictures are
cameras. State and action are looked for by the names that UMI and Diffusion Policy give them, or where the registry's
`keys` say. A dataset may hold several stores of Zarr 2, each a folder or a ZIP file. The library zarr reads them.
"""

import posixpath
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache, partial
from math import prod
from typing import Any
from zipfile import ZipFile

import numpy as np
import pyarrow as pa

from core.errors import install_hint
from ingest.episode import CameraVideo, EpisodeData, EpisodeRecord, Listing, TimedPicture
from ingest.formats.listing import ListingBuilder, in_order, named, texts_among
from ingest.formats.tables import MAX_FPS, numbers, rate_of, side_by_side
from ingest.media.frames import DECODE_ALL, DecodeOptions
from ingest.media.picture import array_picture
from ingest.outcomes import OutcomeEvidence
from ingest.reasons import DataError
from ingest.registry import DatasetConfig
from ingest.sources.files import Source
from ingest.sources.types import SourceError

ZIP_SUFFIX = ".zarr.zip"
ENDS = "meta/episode_ends"
IN_FOLDER = re.compile(rf"(?:(.+)/)?{ENDS}/(?:0|c/0)")
STATE_KEYS = (
    tuple(f"robot{r}_{part}" for r in (0, 1) for part in ("eef_pos", "eef_rot_axis_angle", "gripper_width")),  # UMI
    ("robot_eef_pose", "robot_joint"),  # Diffusion Policy, real robots
    ("state",),
    ("agent_pos",),
)
ACTION_KEYS = (("action",), ("actions",))
FPS_KEYS = ("fps", "sample_rate_hz", "frequency", "control_freq")
TEXT_KEYS = ("task", "instruction", "language_instruction", "prompt")
TIMES = ("timestamp", "timestamps")
NO_CAMERA = re.compile(r"depth|segment|mask|disparity|infra", re.I)
MAX_STEP_S = 1.0
# What is unpacked: others, such as pickle, could run code
IMAGECODECS = ("jpegxl", "jpeg", "png", "webp")
CODECS = ("zlib", "gzip", "bz2", "lzma", "zstd", "lz4", "blosc", *(f"imagecodecs_{c}" for c in IMAGECODECS))


def roots(uris: Iterable[str]) -> dict[str, str]:
    """The folder above the stores; of a store whose folder is not named as one, that folder."""
    found = {}
    for uri in _stores(uris):
        inside = IN_FOLDER.fullmatch(uri)
        store = uri if inside is None else inside[1] or ""
        is_named = inside is None or store.endswith(".zarr")
        found[posixpath.dirname(store) if is_named else store] = ""
    return found


def _stores(uris: Iterable[str]) -> list[str]:
    """A uri for each store: that of its ZIP file, or of the first chunk of where its episodes end."""
    return sorted(uri for uri in uris if uri.endswith(ZIP_SUFFIX) or IN_FOLDER.fullmatch(uri))


# What a store holds


@dataclass(frozen=True)
class Store:
    """An open store: its group, and the keys of all chunks."""

    name: str
    group: Any
    keys: Sequence[str]

    def names(self, group: str) -> list[str]:
        """What lies in a group, sorted."""
        below = f"{group}/"
        names = {key[len(below) :].partition("/")[0] for key in self.keys if key.startswith(below)}
        return sorted(name for name in names if name and not name.startswith("."))

    def array(self, name: str) -> Any:
        """The array at a name; None for none, or for one of no numbers. Raises DataError."""
        with _guarded(f"{self.name or 'the store'}, {name}"):
            try:
                array = self.group[name]
            except KeyError:
                return None
            described = array.metadata.to_dict() if hasattr(array, "chunks") else {}
        codec, rows = described.get("compressor"), getattr(array, "chunks", (0,))[:1]
        if not described or array.dtype.kind not in "fiub" or not array.shape:
            return None
        if described.get("filters"):
            raise DataError(f"{name} is stored through filters, which are not read", "unknown_codec")
        if codec and codec.get("id") not in CODECS:
            raise DataError(f"{name} is packed by {str(codec.get('id'))[:40]!r}, which is not read", "unknown_codec")
        if codec and codec["id"].startswith("imagecodecs") and rows != (1,):
            raise DataError(f"{name} has several pictures in one that is packed by {codec['id']}", "unknown_codec")
        # Pictures that were never written are not made up, since they would look like black ones
        return array.with_config({"read_missing_chunks": array.ndim != 4})


@contextmanager
def opened(source: Source, uri: str) -> Iterator[Store]:
    """The store in a ZIP file, or in the folder that holds a chunk of where its episodes end. Raises DataError."""
    try:
        import imagecodecs.numcodecs
        import numcodecs
        from zarr import errors, open_group, storage
    except ImportError as e:
        raise DataError(f"Zarr stores need further packages ({e}): {install_hint('zarr')}", "unknown_codec") from e
    imagecodecs.numcodecs.register_codecs([f"imagecodecs_{c}" for c in IMAGECODECS], verbose=False)
    numcodecs.register_codec(_within_bounds(numcodecs.Blosc), "blosc")
    limits = source.config.limits

    class Inside(storage.LocalStore):
        """Of files of the source; those of descriptions are hidden: the source does not list them."""

        async def get(self, key: str, prototype: Any = None, byte_range: Any = None) -> Any:
            uri = posixpath.join(name, key)
            is_hidden = posixpath.basename(key).startswith(".")
            if not (source.resolve(uri).is_file() if is_hidden else uri in source.files):
                return None
            limit = "max_header_bytes" if is_hidden else "max_chunk_bytes"
            limits.check(limit, source.resolve(uri).stat().st_size, f"{uri}: bytes")
            return await super().get(key, prototype, byte_range)

    with _guarded(uri):
        if not uri.endswith(ZIP_SUFFIX):
            name = uri.rpartition(f"{ENDS}/")[0].rstrip("/")
            below = f"{name}/" if name else ""
            keys = [uri.removeprefix(below) for uri in source.files if uri.startswith(below)]
            store, path = Inside(source.root / name, read_only=True), ""
        else:
            name, listed = uri, _members(source, uri)
            ends = [key for key in listed if key.endswith(f"{ENDS}/.zarray")]
            path = min(ends, key=len, default="").removesuffix(f"{ENDS}/.zarray")
            keys = [key.removeprefix(path) for key in listed if key.startswith(path)]
            store = storage.ZipStore(source.resolve(uri), read_only=True)
        try:
            group = open_group(store, mode="r", path=path.rstrip("/"), zarr_format=2, use_consolidated=False)
        except errors.GroupNotFoundError as e:
            raise DataError(f"{name or 'the store'} is no store of Zarr 2: write it with zarr_format=2") from e
        limits.check("max_features", len({key.rpartition("/")[0] for key in keys}), f"{name or 'the store'}: arrays")
        yield Store(name, group, keys)


@cache
def _within_bounds(blosc: Any) -> Any:
    """The codec Blosc, which by itself reads as many bytes as a chunk's header says, also beyond the chunk's end."""

    class Within(blosc):
        def decode(self, buf: Any, out: Any = None) -> Any:
            if len(buf) < 16 or int.from_bytes(bytes(buf[12:16]), "little") > len(buf):
                raise ValueError("a chunk of it is cut off")
            return super().decode(buf, out)

    return Within


def _members(source: Source, uri: str) -> list[str]:
    """Names in a ZIP file. Raises DataError where one claims more than the limits, and what zipfile raises."""
    with source.open(uri) as file, ZipFile(file) as archive:
        for item in archive.infolist():
            is_description = posixpath.basename(item.filename).startswith(".")
            limit = "max_header_bytes" if is_description else "max_chunk_bytes"
            source.config.limits.check(limit, item.file_size, f"{uri}: bytes of {item.filename}")
        return archive.namelist()


@contextmanager
def _guarded(what: str) -> Iterator[None]:
    """Whatever zarr and its codecs raise inside the block becomes a DataError."""
    try:
        yield
    except (DataError, SourceError):
        raise
    except Exception as e:
        is_missing = type(e).__name__ == "ChunkNotFoundError"
        told = "a chunk of it was never written" if is_missing else " ".join(str(e).split())[:160]
        raise DataError(f"{what}: {told or type(e).__name__}") from e


@dataclass(frozen=True)
class Roles:
    """Which arrays are what: cameras by name, the state's and the action's in order, and the times of rows."""

    cameras: Mapping[str, Any]
    state: Mapping[str, Any]
    action: Mapping[str, Any]
    times: Any
    problems: tuple[tuple[str, str, str], ...]  # reason, what, array


def roles_of(store: Store, config: DatasetConfig, rows: int) -> Roles:
    """By the arrays' descriptions alone; those that cannot be used are problems."""
    problems: list[tuple[str, str, str]] = []
    arrays = _usable(store, config, rows, problems)
    cameras = {n: a for n, a in arrays.items() if _is_pictures(n, a)}
    vectors = {n: a for n, a in arrays.items() if a.ndim <= 2}
    for name in (*config.keys.state, *config.keys.action):
        if name not in vectors:
            problems.append(("no_data", f"no array data/{name} with a row of numbers for each frame", name))
    state = _first_layout(config.keys.state, STATE_KEYS, vectors)
    action = _first_layout(config.keys.action, ACTION_KEYS, vectors)
    times = next((vectors[n] for n in TIMES if n in vectors and vectors[n].ndim == 1), None)
    return Roles(cameras, state, action, times, tuple(problems))


def _usable(store: Store, config: DatasetConfig, rows: int, problems: list[tuple[str, str, str]]) -> dict[str, Any]:
    """Arrays of numbers with a row for each frame, by name; of others why not."""
    arrays: dict[str, Any] = {}
    for name in store.names("data"):
        try:
            if (array := store.array(f"data/{name}")) is None:
                continue
            chunk_bytes = prod(array.chunks) * array.dtype.itemsize
            config.limits.check("max_chunk_bytes", chunk_bytes, f"{name}: bytes of a chunk")
        except DataError as e:
            problems.append((e.reason, str(e), name))
            continue
        if array.shape[0] < rows:
            told = f"data/{name} has {array.shape[0]} rows, and the episodes end at {rows}: it is not used"
            problems.append(("length_differs", told, name))
        else:
            arrays[name] = array
    return arrays


def _is_pictures(name: str, array: Any) -> bool:
    return not NO_CAMERA.search(name) and array.ndim == 4 and array.dtype == np.uint8 and array.shape[3] in (1, 3)


def _first_layout(
    registered: Sequence[str], usual: Sequence[Sequence[str]], arrays: Mapping[str, Any]
) -> Mapping[str, Any]:
    """The registry's arrays, else those of the first layout that has any."""
    layouts = [registered] if registered else usual
    return next(filter(None, ({n: arrays[n] for n in names if n in arrays} for names in layouts)), {})


def _ends(store: Store, config: DatasetConfig) -> np.ndarray:
    """Where each episode ends, int64 [k]. Raises DataError."""
    array = store.array(ENDS)
    if array is None or array.ndim != 1 or array.dtype.kind not in "iu":
        raise DataError(f"{store.name or 'the store'} has no row of numbers at {ENDS}", "bad_episode_ends")
    config.limits.check("max_rows", array.shape[0], f"{ENDS}: episodes")
    ends = _rows(array, 0, array.shape[0], config).astype(np.int64)
    if len(ends) and (ends[0] <= 0 or (np.diff(ends) <= 0).any()):
        raise DataError(f"{ENDS} does not rise: {named([str(e) for e in ends])}", "bad_episode_ends")
    return ends


def _rows(array: Any, start: int, stop: int, config: DatasetConfig) -> np.ndarray:
    """Rows [start, stop), of the array's type. Raises DataError."""
    chunk_bytes = prod(array.chunks) * array.dtype.itemsize
    config.limits.check("max_chunk_bytes", chunk_bytes, f"{array.path}: bytes of a chunk")
    config.limits.check("max_values", (stop - start) * prod(array.shape[1:]), f"{array.path}: values")
    with _guarded(array.path):
        return np.asarray(array[start:stop])


# Listing


def list_episodes(source: Source) -> Listing:
    listing = ListingBuilder(source)
    for uri in _stores(source.files):
        try:
            with opened(source, uri) as store:
                _add_store(listing, uri, store)
        except (DataError, SourceError) as e:
            listing.add_lost(e, uri, uri)
    cameras = in_order(listing.cameras_in_use(), source.config.cameras)
    return listing.listing("zarr", cameras, nothing="no store holds an episode")


def _add_store(listing: ListingBuilder, uri: str, store: Store) -> None:
    """Raises DataError."""
    config = listing.source.config
    ends = _ends(store, config)
    roles = roles_of(store, config, int(ends[-1]) if len(ends) else 0)
    for reason, detail, name in roles.problems:
        listing.warn(reason, detail, camera=name, file=uri)
    facts, per_episode = dict(store.group.attrs), _per_episode(store, len(ends), config)
    tasks = texts_among(facts.get(name) for name in config.keys.language or TEXT_KEYS)
    stated = next(filter(None, (rate_of(facts.get(name)) for name in FPS_KEYS)), None)
    shown = named([f"data/{n}" for n in store.names("data")]) or "nothing"
    label = store.name or posixpath.basename(str(listing.source.path))
    for k, (start, stop) in enumerate(zip([0, *ends[:-1].tolist()], ends.tolist(), strict=True)):
        of_episode = {n: v[k] for n, v in per_episode.items()}
        if not roles.cameras:
            listing.unusable_next("no_video", f"no array of colour pictures that is read; it holds {shown}", uri)
        if problem := config.limits.excess("max_rows", stop - start, f"{label}: rows of episode {k}"):
            listing.unusable_next("over_limit", problem, uri)
        listing.add(
            f"{label}#{k}",
            listing.fps(stated or config.fps or _rate(roles.times, start, stop, config)),
            tasks=tasks,
            num_rows=stop - start,
            data_uri=uri,
            data_key=str(k),
            row_start=start,
            videos=[CameraVideo(camera, uri, start) for camera in in_order(roles.cameras, config.cameras)],
            evidence=OutcomeEvidence(listing.stated_outcome(of_episode)),
            group=listing.group(of_episode | facts),
            files=_picture_uris(uri, store, roles, start, stop),
            no_task=f"the store has no instruction among its attributes ({TEXT_KEYS[0]})",
        )


def _per_episode(store: Store, count: int, config: DatasetConfig) -> dict[str, list[Any]]:
    """Arrays of `meta` that have a value for each episode. Raises DataError."""
    arrays = {name: store.array(f"meta/{name}") for name in store.names("meta") if f"meta/{name}" != ENDS}
    fitting = {name: array for name, array in arrays.items() if array is not None and array.shape == (count,)}
    return {name: _rows(array, 0, count, config).tolist() for name, array in fitting.items()}


def _picture_uris(uri: str, store: Store, roles: Roles, start: int, stop: int) -> list[str]:
    """Files with an episode's pictures, of a store that is a folder; their sizes show that it has changed."""
    if uri.endswith(ZIP_SUFFIX):
        return []
    uris = []
    for name, array in roles.cameras.items():
        rows, separator = array.chunks[0], array.metadata.dimension_separator
        places = (separator.join([str(k), "0", "0", "0"]) for k in range(start // rows, -(-stop // rows)))
        uris += [posixpath.join(store.name, "data", name, place) for place in places]
    return uris


def _rate(times: Any, start: int, stop: int, config: DatasetConfig) -> float | None:
    """Frames per second by the rows' times. Raises DataError."""
    times_s = _times_s(times, start, stop, config)
    return None if times_s is None else round(float(1 / np.median(np.diff(times_s))), 3)


def _times_s(times: Any, start: int, stop: int, config: DatasetConfig) -> np.ndarray | None:
    """Times of rows in seconds; None where they are none, by their steps. Raises DataError."""
    if times is None or stop - start < 2:
        return None
    stamps = _rows(times, start, stop, config).astype(np.float64)
    steps = np.diff(stamps)
    if not np.isfinite(steps).all() or not 1 / MAX_FPS <= np.median(steps) <= MAX_STEP_S:
        return None
    return stamps


# Reading


def read_episode(source: Source, record: EpisodeRecord) -> EpisodeData:
    """Rows of one episode, and its frames as they are asked for. Raises DataError."""
    start, stop, config = record.row_start, record.row_start + (record.num_rows or 0), source.config
    with opened(source, record.data_uri or "") as store:
        ends, k = _ends(store, config), int(record.data_key)
        # A store that was replaced since it was listed is not the one that the corpus knows
        if k >= len(ends) or (ends[k - 1] if k else 0, ends[k]) != (start, stop):
            raise DataError(f"episode {k} is no more rows {start} to {stop}")
        roles = roles_of(store, config, int(ends[-1]))
        state, action = (_table(arrays, start, stop, config) for arrays in (roles.state, roles.action))
        times_s = _times_s(roles.times, start, stop, config)
    return EpisodeData(record, state, action, times_s, partial(_frames, source, record))


def _table(arrays: Mapping[str, Any], start: int, stop: int, config: DatasetConfig) -> pa.Table | None:
    """Arrays side by side. Raises DataError."""
    tables = []
    for name, array in arrays.items():
        rows, width = _rows(array, start, stop, config), prod(array.shape[1:])
        tables.append(numbers(rows, [f"{name}_{k}" for k in range(width)] if width > 1 else [name]))
    return side_by_side(tables)


def _frames(
    source: Source, record: EpisodeRecord, camera: str, options: DecodeOptions = DECODE_ALL
) -> Iterator[TimedPicture]:
    """Raises DataError."""
    start, stop = record.row_start, record.row_start + (record.num_rows or 0)
    with opened(source, record.data_uri or "") as store:
        array = store.array(f"data/{camera}")
        # A chunk of several pictures is unpacked once
        for row in range(start - start % array.chunks[0], stop, array.chunks[0]):
            first, last = max(row, start), min(row + array.chunks[0], stop)
            for k, picture in enumerate(_rows(array, first, last, source.config), first - start):
                yield k, k / record.fps, array_picture(picture, f"picture {k} of data/{camera}")
