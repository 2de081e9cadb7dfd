"""HDF5 files that are not trusted: no other file is opened through them, and sizes are known before anything is read.

Links and external storage are the ways in which an HDF5 file names other files: `find` and `walk` follow hard links,
and soft links link by link; `checked` refuses data that is stored elsewhere, or not at all.
"""

import io
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from math import ceil, prod
from typing import Any

import h5py
import numpy as np
import pyarrow as pa

from ingest.episode import EpisodeRecord, FrameReader, Listing, TimedPicture
from ingest.formats.listing import ListingBuilder, scene_first, texts_among
from ingest.formats.tables import numbers, side_by_side
from ingest.media.frames import DECODE_ALL, DecodeOptions, Picture
from ingest.media.picture import ArrayPicture, array_picture, check_size, decode_picture
from ingest.outcomes import SUCCESS_FIELDS, Flag, Outcome, OutcomeEvidence, flag_of, known, reward_of, truth
from ingest.reasons import DataError, Limits
from ingest.sources.files import Source

SUFFIXES = (".hdf5", ".h5", ".hdf")
MAX_VALUE_BYTES, MAX_TEXTS = 1 << 20, 1000  # a larger value is no fact about an episode
MAX_DEPTH, MAX_HOPS = 8, 16
# Those that HDF5 and h5py bring along (deflate, shuffle, Fletcher32, szip, n-bit, scale-offset, LZF): no plug-ins
FILTERS = frozenset((1, 2, 3, 4, 5, 6, 32000))
H5_ERRORS = (OSError, RuntimeError, KeyError, ValueError, TypeError, OverflowError, AttributeError, MemoryError)
PICTURE_MARKS = (b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"RIFF", b"BM", b"II*\0", b"MM\0*")
# Folders, and last parts of a path, that say no more than that there are pictures
FOLDERS = ("obs", "observation", "observations", "images", "rgb_images", "image", "cameras", "cam_data", "vision")
LAST_PARTS = ("rgb", "color", "colors", "image", "images")
# No camera's colours, or (robomimic) the same pictures again, one row later
NO_CAMERA = re.compile(r"depth|segment|mask|disparity|(^|/)next_obs/", re.I)
REWARD_KEYS = ("rewards", "reward")
MAX_NAMED = 8  # datasets in a message


def natural(text: str) -> list[str | int]:
    """Sort key: demo_2 before demo_10."""
    return [int(part) if k % 2 else part for k, part in enumerate(re.split(r"([0-9]{1,18})", text))]


@contextmanager
def guarded(what: str) -> Iterator[None]:
    """What HDF5 raises inside the block becomes a DataError."""
    try:
        yield
    except H5_ERRORS as e:
        lines = str(e).strip("'\"").splitlines() or [type(e).__name__]
        raise DataError(f"{what}: {lines[0]}") from e


@contextmanager
def opened(source: Source, uri: str) -> Iterator[h5py.File]:
    """The file, for reading. Raises DataError, also for what HDF5 raises inside the block."""
    with guarded(uri), source.open(uri) as data:
        place = data if isinstance(data, io.BytesIO) else data.name  # a member of a tar has no path
        held = source.config.limits.max_chunk_bytes  # so that a chunk of many pictures is unpacked once
        with h5py.File(place, "r", rdcc_nbytes=held, **({} if place is data else {"locking": False})) as file:
            yield file


# Finding


def find(start: h5py.Group, path: str) -> Any:
    """The group or dataset at a path below `start`, or None. Raises DataError for what leads out of the file."""
    node, rest, hops = start, path.split("/")[::-1], 0  # `rest` is a stack: a soft link puts its own path on it
    while rest:
        if (name := rest.pop()) in ("", "."):
            continue
        # A path that ends early, or leads through a dataset, leads to nothing
        if not isinstance(node, h5py.Group) or not node.id.links.exists(name.encode("utf-8", "surrogateescape")):
            return None
        link = node.get(name, getlink=True)
        if isinstance(link, h5py.HardLink):
            node = node[name]
            continue
        if not isinstance(link, h5py.SoftLink):
            raise DataError(f"{path} is a link to another file; not followed", "path_escape")
        # Links may lead round in a circle
        if (hops := hops + 1) > MAX_HOPS:
            raise DataError(f"{path}: too many links")
        # The link's path counts from the file's root, or from the group that the link lies in
        node = node.file if link.path.startswith("/") else node
        rest += link.path.split("/")[::-1]
    return node


def members(group: h5py.Group) -> list[str]:
    """Names of what a group holds, as numbers count. Raises DataError for names that are no text."""
    names = [str(name) for name in group]
    if wrong := next((name for name in names if not name.isprintable() or name == "."), None):
        raise DataError(f"{group.name} holds a name that is not text: {wrong!r}")
    return sorted(names, key=natural)


def walk(start: h5py.Group, escapes: list[str], limits: Limits) -> Iterator[tuple[str, h5py.Dataset]]:
    """(path, dataset) of everything below a group, a bounded number of it; `escapes` gathers links to other files."""
    # A stack of the groups that are still to be looked into
    groups, num_seen = [("", start)], 0
    while groups:
        below, group = groups.pop()
        for path in (below + name for name in members(group)):
            # Groups can hold one another, so that only a limit is sure to end the walk
            num_seen += 1
            limits.check("max_features", num_seen, f"{start.name}: objects, at least")
            try:
                member = find(start, path)
            except DataError as e:
                if e.reason != "path_escape":
                    raise
                escapes.append(path)
                continue
            if isinstance(member, h5py.Dataset):
                yield path, member
            elif isinstance(member, h5py.Group) and path.count("/") < MAX_DEPTH:
                groups.append((path + "/", member))


# Reading


def checked(dataset: h5py.Dataset, limits: Limits) -> h5py.Dataset:
    """The dataset itself, when it is stored whole, in this file and readably. Raises DataError."""
    name, shape, chunks = dataset.name, dataset.shape, dataset.chunks
    if dataset.is_virtual or dataset.external:
        raise DataError(f"{name} is stored in another file; not followed", "path_escape")
    # A plug-in is code of somebody else's
    properties = dataset.id.get_create_plist()
    if unknown := sorted({properties.get_filter(i)[0] for i in range(properties.get_nfilters())} - FILTERS):
        raise DataError(f"{name} is stored with filter {unknown[0]}, which needs a plug-in")
    # What has no values needs no storage
    if not shape or 0 in shape:
        return dataset
    # HDF5 would give zeros, which look like data, for what was never stored
    if chunks is None and dataset.id.get_storage_size() < prod(shape) * dataset.dtype.itemsize:
        raise DataError(f"{name} was never written")
    if chunks is not None:
        limits.check("max_chunk_bytes", prod(chunks) * dataset.dtype.itemsize, f"{name}: bytes of a chunk")
        _check_chunks(dataset, shape, chunks)
    return dataset


def _check_chunks(dataset: h5py.Dataset, shape: tuple[int, ...], chunks: tuple[int, ...]) -> None:
    """Are all there, and none larger than what it unpacks to? Raises DataError."""
    sizes: list[int] = []
    if dataset.id.get_num_chunks():
        dataset.id.chunk_iter(lambda info: sizes.append(info.size))
    count, chunk_bytes = prod(map(ceil, np.divide(shape, chunks))), prod(chunks) * dataset.dtype.itemsize
    if len(sizes) < count:
        raise DataError(f"{dataset.name}: {count - len(sizes)} of its {count} chunks were never written")
    # No filter makes data so much longer: it unpacks to more
    if max(sizes) > chunk_bytes + chunk_bytes // 8 + 4096:
        raise DataError(f"{dataset.name} has a chunk of {max(sizes)} bytes where {chunk_bytes} fit")


def values(dataset: h5py.Dataset, limits: Limits) -> np.ndarray:
    """Numbers [n, ...]. Raises DataError."""
    if dataset.dtype.kind not in "fiub" or not dataset.shape:
        raise DataError(f"{dataset.name} holds no rows of numbers: {dataset.dtype} {dataset.shape}")
    limits.check("max_values", prod(dataset.shape), f"{dataset.name}: values")
    return checked(dataset, limits)[()]


def rows_in(group: h5py.Group, paths: Iterable[str]) -> dict[str, h5py.Dataset]:
    """Those of some paths where there are rows of numbers."""
    datasets = {path: find(group, path) for path in paths}
    return {p: d for p, d in datasets.items() if isinstance(d, h5py.Dataset) and d.shape and d.dtype.kind in "fiub"}


def length_of(parts: dict[str, h5py.Dataset], limits: Limits) -> int | None:
    """Rows of vectors that belong side by side; None for none. Raises DataError when they differ."""
    rows = {path: part.shape[0] for path, part in parts.items()}
    if len(set(rows.values())) > 1:
        raise DataError(f"vectors of one episode differ in length: {rows}")
    for part in parts.values():
        checked(part, limits)
    return next(iter(rows.values()), None)


def table_of(parts: dict[str, h5py.Dataset], limits: Limits) -> pa.Table | None:
    """Vectors side by side. Raises DataError.

    Example: "obs/ee_pos" [n, 2] and "obs/gripper" [n, 1] give the columns ee_pos_0, ee_pos_1 and gripper_0.
    """
    length_of(parts, limits)
    tables = []
    for path, part in parts.items():
        stored = values(part, limits)
        width = prod(stored.shape[1:])
        tables.append(numbers(stored, [f"{path.rpartition('/')[2]}_{k}" for k in range(width)]))
    return side_by_side(tables)


def value(place: h5py.Group, path: str, limits: Limits) -> Any:
    """What a small dataset or an attribute below a group holds, or None. Raises DataError.

    An attribute is `path/name` of the group or dataset at `path`.
    """
    # A large value is no fact about an episode, and is not read
    stored = find(place, path)
    if isinstance(stored, h5py.Dataset):
        is_small = stored.shape is not None and _is_small(stored.shape, stored.dtype)
        return checked(stored, limits)[()] if is_small else None
    # No dataset lies there: the last part may be an attribute's name
    at, _, name = path.rpartition("/")
    holder = find(place, at)
    if holder is None or name not in holder.attrs:
        return None
    known = holder.attrs.get_id(name)
    return holder.attrs[name] if _is_small(known.shape, known.dtype) else None


def _is_small(shape: tuple[int, ...], dtype: np.dtype) -> bool:
    return prod(shape) * dtype.itemsize <= MAX_VALUE_BYTES and (dtype.kind != "O" or prod(shape) <= MAX_TEXTS)


def texts(stored: Any) -> tuple[str, ...]:
    """The texts that a value holds, without quotation marks and spaces around them."""
    flat = stored.ravel().tolist() if isinstance(stored, np.ndarray) else [stored]
    decoded = [text.decode("utf-8", "replace") if isinstance(text, bytes) else text for text in flat]
    whole = [text.encode("utf-8", "replace").decode().strip().strip('"') for text in decoded if isinstance(text, str)]
    return texts_among(whole)


# Pictures


def cameras_of(group: h5py.Group, escapes: list[str], limits: Limits) -> dict[str, h5py.Dataset]:
    """Datasets with pictures below a group, by camera name; names that two would have are whole paths."""
    found = walk(group, escapes, limits)
    datasets = {path: dataset for path, dataset in found if is_pictures(path, dataset, limits)}
    uses = Counter(map(camera_name, datasets))
    return {path if uses[name := camera_name(path)] > 1 else name: dataset for path, dataset in datasets.items()}


def camera_name(path: str) -> str:
    """A camera's name: its path without the folders and the last part that say no more than 'pictures'."""
    parts = path.split("/")
    while len(parts) > 1 and parts[0] in FOLDERS:
        del parts[0]
    while len(parts) > 1 and parts[-1] in LAST_PARTS:
        del parts[-1]
    return "/".join(parts)


def is_pictures(path: str, dataset: h5py.Dataset, limits: Limits) -> bool:
    """Does it hold colour pictures: uint8 [t, h, w, 3 or 1], or an encoded one per row?"""
    shape, dtype = dataset.shape, dataset.dtype
    if not shape or not shape[0] or NO_CAMERA.search(path):
        return False
    if len(shape) == 4:
        return dtype == np.uint8 and shape[3] in (1, 3)
    if not _holds_bytes(shape, dtype):
        return False
    # Does the first, middle or last row begin like a picture's file?
    try:
        rows = {0, shape[0] // 2, shape[0] - 1}
        return any(encoded(checked(dataset, limits), k, limits).startswith(PICTURE_MARKS) for k in rows)
    except (DataError, *H5_ERRORS):
        return "image" in path or "rgb" in path  # it is called so: what is wrong with it shows when it is read


def _holds_bytes(shape: tuple[int, ...], dtype: np.dtype) -> bool:
    """Bytes of a file for each row?"""
    if len(shape) == 2:
        return dtype == np.uint8 and shape[1] >= 64
    variable = h5py.check_vlen_dtype(dtype) or h5py.check_string_dtype(dtype)
    return len(shape) == 1 and (bool(variable) or (dtype.kind == "V" and dtype.names is None))


def encoded(dataset: h5py.Dataset, k: int, limits: Limits) -> bytes:
    """Row k of encoded pictures; padding is left on. Raises DataError."""
    row_bytes = dataset.dtype.itemsize * prod(dataset.shape[1:])
    limits.check("max_chunk_bytes", row_bytes, f"{dataset.name}: bytes of a row")
    row = dataset[k]
    return row.tobytes() if isinstance(row, np.ndarray | np.generic) else bytes(row)


def read_picture(dataset: h5py.Dataset, k: int, limits: Limits, bottom_up: bool = False) -> ArrayPicture:
    """Picture k of a checked dataset; `bottom_up`: its rows are stored last first. Raises DataError."""
    what = f"picture {k} of {dataset.name}"
    if len(dataset.shape) < 4:
        return decode_picture(encoded(dataset, k, limits), what, limits)
    check_size(dataset.shape[2], dataset.shape[1], what, limits)
    array = dataset[k]
    return array_picture(array[::-1] if bottom_up else array, what)


# What an episode's group shows, and its pictures: of the adapters


def group_of(file: h5py.File, record: EpisodeRecord) -> h5py.Group:
    """The group of an episode that was listed. Raises DataError: the file is another one by now."""
    group = find(file, record.data_key)
    if not isinstance(group, h5py.Group):
        detail = f"there is no group {record.data_key} any more: the file has changed since it was listed"
        raise DataError(f"{record.data_uri}: {detail}", "no_data")
    return group


def cameras_in(listing: ListingBuilder, uri: str, group: h5py.Group) -> dict[str, h5py.Dataset]:
    """Cameras of the coming episode that can be read, by preference; finds what is wrong with the others."""
    escapes: list[str] = []
    readable: dict[str, h5py.Dataset] = {}
    limits = listing.source.config.limits
    cameras = cameras_of(group, escapes, limits)
    for camera in scene_first(cameras, listing.source.config.cameras):
        try:
            readable[camera] = checked(cameras[camera], limits)
        except DataError as e:
            listing.warn_next(e.reason, str(e), uri, camera)
    for path in escapes:
        listing.warn_next("path_escape", f"{path} is a link to another file; not followed", uri)
    if not readable:
        # What else is there, by which a registry's author may see what the pictures are called
        paths = [path for path, _ in walk(group, [], limits)]
        detail = f"no pictures that can be read among its {len(paths)} datasets: {', '.join(paths[:MAX_NAMED])}"
        listing.unusable_next("no_video", detail, uri)
    return readable


def evidence_in(listing: ListingBuilder, uri: str, group: h5py.Group, registered: Sequence[str]) -> OutcomeEvidence:
    """What the coming episode's group says of its outcome: `registered` fields at their word, then the usual ones.

    A dataset has a value per row, of which the last counts; a single value or an attribute is stated once.
    """

    def fact(name: str) -> Any:
        """A small value; None, with a finding, where it cannot be read: the rest is used."""
        try:
            with guarded(f"{uri}, {name}"):
                return value(group, name, listing.source.config.limits)
        except DataError as e:
            listing.warn_next(e.reason, f"{e}; it says nothing of success", uri)
            return None

    stated: Outcome | None = None
    flags: list[Flag] = []
    for name in dict.fromkeys((*registered, *SUCCESS_FIELDS)):
        stored = fact(name)
        flag, success = flag_of(name, _of_rows(stored)), truth(stored)
        if flag and name not in registered:
            flags.append(flag)
        elif flag:
            stated = stated or Outcome(flag.at_end, f"column {name}")
        elif success is not None:
            stated = stated or Outcome(success, f"metadata {name}")
    rewards = (reward_of(name, _of_rows(fact(name))) for name in REWARD_KEYS)
    return OutcomeEvidence(stated, tuple(flags), reward=next(filter(None, rewards), None))


def _of_rows(stored: Any) -> np.ndarray:
    """Several numbers or truths, one for each row; other things are no values."""
    has_rows = isinstance(stored, np.ndarray) and stored.size > 1 and stored.dtype.kind in "biuf"
    return known(stored if has_rows else ())


def frames_of(source: Source, record: EpisodeRecord, picture: Callable[[h5py.Dataset, int], Picture]) -> FrameReader:
    """Episode.frames of an episode at a group of a file; `picture` reads one of a camera's dataset."""

    def frames(camera: str, options: DecodeOptions = DECODE_ALL) -> Iterator[TimedPicture]:
        limits, uri = source.config.limits, record.data_uri or ""
        with opened(source, uri) as file:
            # Found and checked anew: the file may be another one than when it was listed
            if camera not in (found := cameras_of(group_of(file, record), [], limits)):
                raise DataError(f"{uri}: there are no pictures of {camera} any more", "missing_camera")
            pictures = checked(found[camera], limits)
            for k in range(pictures.shape[0]):
                yield k, k / record.fps, picture(pictures, k)

    return frames


def finished(listing: ListingBuilder, format_: str) -> Listing:
    cameras = scene_first(listing.cameras_in_use(), listing.source.config.cameras)
    listing.find_missing(sorted(cameras), "no pictures of {}, which other episodes have")
    return listing.listing(format_, cameras, nothing="no file holds an episode")
