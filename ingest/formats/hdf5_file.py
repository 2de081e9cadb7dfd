"""HDF5 files that are not trusted: no other file is opened through them, and sizes are known before anything is read.

Links and external storage are the ways in which an HDF5 file names other files: `find` and `walk` follow hard links,
and soft links link by link; `checked` refuses data that is stored elsewhere, or not at all.
"""

import re
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from math import ceil, prod
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from ingest.limits import Limits
from ingest.media.picture import ArrayPicture, array_picture, check_size, decode_picture
from ingest.media.video import LFS_MARK

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


class Hdf5Error(Exception):
    """A file, or a part of it, that cannot be used; `reason` is a finding's reason code."""

    def __init__(self, message: str, reason: str = "unreadable_data") -> None:
        super().__init__(message)
        self.reason = reason


def natural(text: str) -> list[str | int]:
    """Sort key: demo_2 before demo_10."""
    return [int(part) if k % 2 else part for k, part in enumerate(re.split(r"([0-9]{1,18})", text))]


@contextmanager
def guarded(what: str) -> Iterator[None]:
    """What HDF5 raises inside the block becomes an Hdf5Error."""
    try:
        yield
    except H5_ERRORS as e:
        lines = str(e).strip("'\"").splitlines() or [type(e).__name__]
        raise Hdf5Error(f"{what}: {lines[0]}") from e


@contextmanager
def opened(path: Path, limits: Limits) -> Iterator[h5py.File]:
    """The file, for reading. Raises Hdf5Error, also for what HDF5 raises inside the block.

    A chunk is held once it is read, so that one of many pictures is unpacked once.
    """
    with guarded(path.name):
        with path.open("rb") as f:
            if f.read(len(LFS_MARK)) == LFS_MARK:
                raise Hdf5Error(f"{path.name} is a git-LFS pointer, not the file", "lfs_pointer")
        with h5py.File(path, "r", rdcc_nbytes=limits.max_chunk_bytes, locking=False) as file:
            yield file


# Finding


def find(start: h5py.Group, path: str) -> Any:
    """The group or dataset at a path below `start`, or None. Raises Hdf5Error for what leads out of the file."""
    node, rest, hops = start, path.split("/")[::-1], 0  # `rest` is a stack: a soft link puts its own path on it
    while rest:
        name = rest.pop()
        if name in ("", "."):
            continue
        # A path that ends early, or leads through a dataset, leads to nothing
        if not isinstance(node, h5py.Group) or not _has_link(node, name):
            return None
        link = node.get(name, getlink=True)
        if isinstance(link, h5py.HardLink):
            node = node[name]
            continue
        if not isinstance(link, h5py.SoftLink):
            raise Hdf5Error(f"{path} is a link to another file; not followed", "path_escape")
        # Links may lead round in a circle
        hops += 1
        if hops > MAX_HOPS:
            raise Hdf5Error(f"{path}: too many links")
        # The link's path counts from the file's root, or from the group that the link lies in
        node = node.file if link.path.startswith("/") else node
        rest += link.path.split("/")[::-1]
    return node


def _has_link(group: h5py.Group, name: str) -> bool:
    return group.id.links.exists(name.encode("utf-8", "surrogateescape"))


def names(group: h5py.Group) -> list[str]:
    """Names of what a group holds, as numbers count. Raises Hdf5Error for names that are no text."""
    members = list(group)
    for name in members:
        if not name.isprintable() or name == ".":
            raise Hdf5Error(f"{group.name} holds a name that is not text: {name!r}")
    return sorted(members, key=natural)


def walk(start: h5py.Group, escapes: list[str], limits: Limits) -> Iterator[tuple[str, h5py.Dataset]]:
    """(path, dataset) of everything below a group, a bounded number of it; `escapes` gathers links to other files."""
    # A stack of the groups that are still to be looked into
    groups, num_seen = [("", start)], 0
    while groups:
        below, group = groups.pop()
        for name in names(group):
            path = below + name
            # Groups can hold one another, so that only a limit is sure to end the walk
            num_seen += 1
            if num_seen > limits.max_features:
                _check(limits.excess("max_features", num_seen, f"{start.name}: objects, at least"))
            member = _member(group, name, path, escapes)
            if isinstance(member, h5py.Dataset):
                yield path, member
            elif isinstance(member, h5py.Group) and path.count("/") < MAX_DEPTH:
                groups.append((path + "/", member))


def _member(group: h5py.Group, name: str, path: str, escapes: list[str]) -> Any:
    """What a name in a group leads to; None, with the path put to `escapes`, where that is out of the file."""
    try:
        return find(group, name)
    except Hdf5Error as e:
        if e.reason != "path_escape":
            raise
        escapes.append(path)
        return None


# Reading


def _check(problem: str) -> None:
    """Raises Hdf5Error."""
    if problem:
        raise Hdf5Error(problem, "over_limit")


def checked(dataset: h5py.Dataset, limits: Limits) -> h5py.Dataset:
    """The dataset itself, when it is stored whole, in this file and readably. Raises Hdf5Error."""
    if dataset.is_virtual or dataset.external:
        raise Hdf5Error(f"{dataset.name} is stored in another file; not followed", "path_escape")
    _check_filters(dataset)
    # What has no values needs no storage
    if not dataset.shape or 0 in dataset.shape:
        return dataset
    if dataset.chunks is not None:
        _check_chunks(dataset, dataset.chunks, limits)
    elif dataset.id.get_storage_size() < prod(dataset.shape) * dataset.dtype.itemsize:
        # HDF5 would give zeros, which look like data, for what was never stored
        raise Hdf5Error(f"{dataset.name} was never written")
    return dataset


def _check_filters(dataset: h5py.Dataset) -> None:
    """Raises Hdf5Error for a filter that HDF5 does not bring along: a plug-in, which is code of somebody else's."""
    properties = dataset.id.get_create_plist()
    filters = {properties.get_filter(i)[0] for i in range(properties.get_nfilters())}
    unknown = sorted(filters - FILTERS)
    if unknown:
        raise Hdf5Error(f"{dataset.name} is stored with filter {unknown[0]}, which needs a plug-in")


def _check_chunks(dataset: h5py.Dataset, chunks: tuple[int, ...], limits: Limits) -> None:
    """Raises Hdf5Error where chunks are too large to read, are missing, or would unpack to more than they hold."""
    name, chunk_bytes = dataset.name, prod(chunks) * dataset.dtype.itemsize
    _check(limits.excess("max_chunk_bytes", chunk_bytes, f"{name}: bytes of a chunk"))
    # Chunks that were never written would read as zeros
    sizes = _chunk_sizes(dataset)
    count = prod(ceil(n / c) for n, c in zip(dataset.shape, chunks, strict=True))
    if len(sizes) < count:
        raise Hdf5Error(f"{name}: {count - len(sizes)} of its {count} chunks were never written")
    if max(sizes) > chunk_bytes + chunk_bytes // 8 + 4096:  # no filter makes data so much longer: it unpacks to more
        raise Hdf5Error(f"{name} has a chunk of {max(sizes)} bytes where {chunk_bytes} fit")


def _chunk_sizes(dataset: h5py.Dataset) -> list[int]:
    """Bytes of each chunk that was written, as stored."""
    sizes: list[int] = []
    if dataset.id.get_num_chunks():
        dataset.id.chunk_iter(lambda info: sizes.append(info.size))
    return sizes


def numbers(dataset: h5py.Dataset, limits: Limits) -> np.ndarray:
    """float64 [n, d] of a dataset [n, ...]. Raises Hdf5Error."""
    if dataset.dtype.kind not in "fiub" or not dataset.shape:
        raise Hdf5Error(f"{dataset.name} holds no rows of numbers: {dataset.dtype} {dataset.shape}")
    _check(limits.excess("max_values", prod(dataset.shape), f"{dataset.name}: values"))
    return checked(dataset, limits)[()].astype(np.float64).reshape(dataset.shape[0], -1)


def value(place: h5py.Group, path: str, limits: Limits) -> Any:
    """What a small dataset or an attribute below a group holds, or None. Raises Hdf5Error.

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
    """The texts that a value holds, trimmed; those that are empty, and what is no text, left out."""
    flat = stored.ravel().tolist() if isinstance(stored, np.ndarray) else [stored]
    trimmed = [_trimmed(text) for text in flat if isinstance(text, str | bytes)]
    return tuple(text for text in trimmed if text)


def _trimmed(text: str | bytes) -> str:
    """A text without quotation marks and spaces around it, and without halves of characters."""
    decoded = text.decode("utf-8", "replace") if isinstance(text, bytes) else text
    return decoded.encode("utf-8", "replace").decode().strip().strip('"').strip()


# Pictures


def is_pictures(path: str, dataset: h5py.Dataset, limits: Limits) -> bool:
    """Does it hold colour pictures: uint8 [t, h, w, 3 or 1], or an encoded one per row?"""
    shape = dataset.shape
    if not shape or not shape[0] or NO_CAMERA.search(path):
        return False
    if len(shape) == 4:
        return dataset.dtype == np.uint8 and shape[3] in (1, 3)
    return _is_encoded(dataset) and _begins_like_pictures(path, dataset, limits)


def _begins_like_pictures(path: str, dataset: h5py.Dataset, limits: Limits) -> bool:
    """Does the first, middle or last row begin like a picture's file?"""
    rows = {0, dataset.shape[0] // 2, dataset.shape[0] - 1}
    try:
        return any(encoded(checked(dataset, limits), k, limits).startswith(PICTURE_MARKS) for k in rows)
    except (Hdf5Error, *H5_ERRORS):
        return "image" in path or "rgb" in path  # it is called so: what is wrong with it shows when it is read


def _is_encoded(dataset: h5py.Dataset) -> bool:
    dtype = dataset.dtype
    if len(dataset.shape) == 2:
        return dtype == np.uint8 and dataset.shape[1] >= 64
    variable = h5py.check_vlen_dtype(dtype) or h5py.check_string_dtype(dtype)
    return len(dataset.shape) == 1 and (bool(variable) or (dtype.kind == "V" and dtype.names is None))


def encoded(dataset: h5py.Dataset, k: int, limits: Limits) -> bytes:
    """Row k of encoded pictures; padding is left on. Raises Hdf5Error."""
    row_bytes = dataset.dtype.itemsize * prod(dataset.shape[1:])
    _check(limits.excess("max_chunk_bytes", row_bytes, f"{dataset.name}: bytes of a row"))
    row = dataset[k]
    return row.tobytes() if isinstance(row, np.ndarray | np.generic) else bytes(row)


def read_picture(dataset: h5py.Dataset, k: int, limits: Limits, bottom_up: bool = False) -> ArrayPicture:
    """Picture k of a checked dataset; `bottom_up`: its rows are stored last first. Raises VideoError or Hdf5Error."""
    what = f"picture {k} of {dataset.name}"
    if len(dataset.shape) < 4:
        return decode_picture(encoded(dataset, k, limits), what, limits)
    check_size(dataset.shape[2], dataset.shape[1], what, limits)
    array = dataset[k]
    return array_picture(array[::-1] if bottom_up else array, what)


def camera_name(path: str) -> str:
    """A camera's name: its path without the folders and the last part that say no more than 'pictures'."""
    parts = path.split("/")
    while len(parts) > 1 and parts[0] in FOLDERS:
        del parts[0]
    while len(parts) > 1 and parts[-1] in LAST_PARTS:
        del parts[-1]
    return "/".join(parts)


def cameras_of(group: h5py.Group, escapes: list[str], limits: Limits) -> dict[str, h5py.Dataset]:
    """Datasets with pictures below a group, by camera name; names that two would have are whole paths."""
    found = walk(group, escapes, limits)
    datasets = {path: dataset for path, dataset in found if is_pictures(path, dataset, limits)}
    uses = Counter(camera_name(path) for path in datasets)
    cameras = {}
    for path, dataset in datasets.items():
        name = camera_name(path)
        cameras[path if uses[name] > 1 else name] = dataset
    return cameras
