"""Zarr 2 stores that are not trusted, as folders or ZIP files: sizes are known before anything is unpacked.

An array's own description says how long a chunk is. What a chunk claims to be, in its codec's header, is held against
that, and no more than that is unpacked. Codecs are looked up in a list of ours: nothing that a store names is loaded.
"""

import bz2
import lzma
import re
import struct
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any, Protocol
from zipfile import BadZipFile, ZipFile

import lz4.block
import numpy as np
import zstandard

from ingest.formats.jpegxl import JpegXlError, jpegxl_size
from ingest.formats.side_files import parse_json
from ingest.limits import Limits
from ingest.media.picture import decode_picture, encoded_size
from ingest.media.video import LFS_MARK, VideoError
from ingest.sources.files import Source
from ingest.sources.types import SourceError

ZIP_SUFFIX = ".zarr.zip"
ENDS = "meta/episode_ends"
ROWS = 4  # times limits.max_chunk_bytes: of chunks that lie side by side at the same rows
NUMBERS = re.compile(r"[<>|][fiub][1248]")
PICTURES_BY_OPENCV = ("imagecodecs_jpeg", "imagecodecs_png", "imagecodecs_webp")
JPEGXL = "imagecodecs_jpegxl"
NEEDS_IMAGECODECS = ("blosc", JPEGXL)
ENTRY_ERRORS = (BadZipFile, zlib.error, RuntimeError, NotImplementedError, KeyError, OSError, EOFError, ValueError)
DAMAGED = (zlib.error, lzma.LZMAError, zstandard.ZstdError, OSError, EOFError, ValueError, RuntimeError, struct.error)


class ZarrError(Exception):
    """A store, or an array of it, that cannot be used; `reason` is a finding's reason code."""

    def __init__(self, message: str, reason: str = "unreadable_data") -> None:
        super().__init__(message)
        self.reason = reason


# Stores


class Store(Protocol):
    """What keys lead to, with how many bytes. `name` is for messages; `limits` are those of its dataset."""

    @property
    def name(self) -> str: ...

    @property
    def limits(self) -> Limits: ...

    @property
    def keys(self) -> Iterable[str]: ...

    def read(self, key: str, most: int, rule: str = "") -> bytes | None:
        """None for what is not there. Raises ZarrError, also for more than `most` bytes, which `rule` says."""
        ...


@dataclass(frozen=True)
class FolderStore:
    """A store whose keys are files. Those of metadata are hidden, so that a source does not list them."""

    source: Source
    name: str  # its folder

    @property
    def limits(self) -> Limits:
        return self.source.config.limits

    @property
    def keys(self) -> Iterable[str]:
        below = f"{self.name}/" if self.name else ""
        return (uri.removeprefix(below) for uri in self.source.files if uri.startswith(below))

    def uri(self, key: str) -> str:
        return f"{self.name}/{key}" if self.name else key

    def read(self, key: str, most: int, rule: str = "") -> bytes | None:
        try:
            path = self.source.resolve(self.uri(key))
            with path.open("rb") as file:
                return _bounded(file.read(most + 1), most, key, rule)
        except FileNotFoundError:
            return None
        except (SourceError, OSError) as e:
            raise ZarrError(f"{self.uri(key)}: {e}") from e


@dataclass(frozen=True)
class ZipStore:
    """A store in a ZIP file, whose keys are its members below a folder."""

    name: str
    archive: ZipFile
    below: str
    limits: Limits

    @property
    def keys(self) -> Iterable[str]:
        return (key.removeprefix(self.below) for key in self.archive.namelist() if key.startswith(self.below))

    def read(self, key: str, most: int, rule: str = "") -> bytes | None:
        try:
            with self.archive.open(self.below + key) as file:
                return _bounded(file.read(most + 1), most, key, rule)
        except KeyError:
            return None
        except ENTRY_ERRORS as e:
            raise ZarrError(f"{self.name}, {key}: {_short(e)}") from e


def _bounded(data: bytes, most: int, key: str, rule: str) -> bytes:
    """Raises ZarrError."""
    if len(data) > most:
        told = f"{key} holds more than the {most:,} bytes that it may" + (f" ({rule})" if rule else "")
        raise ZarrError(told, "over_limit")
    return data


@contextmanager
def opened(source: Source, uri: str) -> Iterator[Store]:
    """The store in a ZIP file, or in the folder that holds a chunk of where its episodes end.

    Raises ZarrError, SourceError and OSError.
    """
    if not uri.endswith(ZIP_SUFFIX):
        yield FolderStore(source, uri.rpartition(f"{ENDS}/")[0].rstrip("/"))
        return
    path = source.resolve(uri)
    _check_is_no_pointer(path)
    try:
        archive = ZipFile(path)
    except ENTRY_ERRORS as e:
        raise ZarrError(f"{uri} is no ZIP file that can be read ({_short(e)})") from e
    with archive:
        names = [name for name in archive.namelist() if name.endswith(f"{ENDS}/.zarray")]
        below = min(names, key=len).removesuffix(f"{ENDS}/.zarray") if names else ""
        yield ZipStore(uri, archive, below, source.config.limits)


def _check_is_no_pointer(path: Path) -> None:
    with path.open("rb") as file:
        if file.read(len(LFS_MARK)) == LFS_MARK:
            raise ZarrError(f"{path.name} is a git-LFS pointer, not the file", "lfs_pointer")


def members(store: Store, group: str) -> list[str]:
    """Names of what lies in a group, sorted. Raises ZarrError."""
    below = group + "/"
    names = {key[len(below) :].partition("/")[0] for key in store.keys if key.startswith(below)}
    found = sorted(name for name in names if name and not name.startswith("."))
    _check(store.limits.excess("max_features", len(found), f"{store.name or 'the store'}, {group}: arrays"))
    return found


def _check(problem: str) -> None:
    """Raises ZarrError."""
    if problem:
        raise ZarrError(problem, "over_limit")


def attributes(store: Store, group: str = "") -> dict[str, Any]:
    """A group's own facts; {} where there are none. Raises ZarrError."""
    return _json(store, f"{group}/.zattrs".lstrip("/")) or {}


def _description(store: Store, key: str) -> bytes | None:
    """Raises ZarrError."""
    most = store.limits.max_header_bytes
    return store.read(key, most, "limits.max_header_bytes of the registry entry")


def _json(store: Store, key: str) -> dict[str, Any] | None:
    data = _description(store, key)
    if data is None:
        return None
    try:
        content = parse_json(data.decode())
    except ValueError as e:
        raise ZarrError(f"{store.name}, {key} is no JSON ({_short(e)})") from e
    if not isinstance(content, dict):
        raise ZarrError(f"{store.name}, {key} is no JSON object")
    return content


# Arrays


@dataclass(frozen=True)
class Array:
    """What an array's description says; its chunks are `chunk_shape` each, the last ones too."""

    name: str
    shape: tuple[int, ...]
    chunk_shape: tuple[int, ...]
    dtype: np.dtype
    codec: Mapping[str, Any] | None
    fill: Any
    order: str
    separator: str

    @property
    def chunk_bytes(self) -> int:
        return prod(self.chunk_shape) * self.dtype.itemsize

    @property
    def codec_name(self) -> str:
        return str(self.codec.get("id")) if self.codec else "none"


def array_of(store: Store, name: str) -> Array | None:
    """The array at a name; None for none, or for one of no numbers. Raises ZarrError."""
    said = _json(store, f"{name}/.zarray")
    if said is None:
        if _description(store, f"{name}/zarr.json") is not None:
            raise ZarrError(f"{name} is stored as Zarr 3, of which nothing is read: write it with zarr_format=2")
        return None
    dtype = said.get("dtype")
    if not isinstance(dtype, str) or not NUMBERS.fullmatch(dtype):
        return None
    shape, chunk_shape = _sizes(said.get("shape"), 0), _sizes(said.get("chunks"), 1)
    if shape is None or chunk_shape is None or len(shape) != len(chunk_shape) or said.get("zarr_format") != 2:
        raise ZarrError(f"{name}: its description is damaged")
    codec = said.get("compressor")
    if said.get("filters"):
        raise ZarrError(f"{name} is stored through filters, which are not read", "unknown_codec")
    if codec is not None and not isinstance(codec, dict):
        raise ZarrError(f"{name}: its compressor is no description")
    array = Array(
        name, shape, chunk_shape, np.dtype(dtype), codec, said.get("fill_value"), str(said.get("order", "C")),
        "/" if said.get("dimension_separator") == "/" else ".",
    )  # fmt: skip
    _check(store.limits.excess("max_chunk_bytes", array.chunk_bytes, f"{name}: bytes of a chunk"))
    _check_codec(array)
    return array


def _sizes(values: Any, least: int) -> tuple[int, ...] | None:
    if not isinstance(values, list) or not all(type(v) is int and least <= v < 1 << 40 for v in values):
        return None
    return tuple(values) if values else None


def _check_codec(array: Array) -> None:
    """Raises ZarrError for a codec that is not read, or whose package is not here."""
    name = array.codec_name
    if name != "none" and name not in (*CODECS, *PICTURES_BY_OPENCV, JPEGXL):
        raise ZarrError(f"{array.name} is packed by {name[:40]!r}, which is not read", "unknown_codec")
    if name in NEEDS_IMAGECODECS:
        _imagecodecs(array.name)
    if name in (*PICTURES_BY_OPENCV, JPEGXL) and (len(array.chunk_shape) != 4 or array.chunk_shape[0] != 1):
        raise ZarrError(f"{array.name} has several pictures in one that is packed by {name}", "unknown_codec")


def _imagecodecs(name: str) -> Any:
    """Raises ZarrError where the package is not installed."""
    try:
        import imagecodecs
    except ImportError as e:
        told = f"{name} is packed by Blosc or JPEG XL, for which the package imagecodecs is needed"
        raise ZarrError(told, "unknown_codec") from e
    return imagecodecs


@dataclass
class Rows:
    """An array's rows; the chunks last used are kept unpacked, as rows are asked for in order."""

    store: Store
    array: Array

    def __post_init__(self) -> None:
        self._first, self._kept = -1, np.empty(0)

    def read(self, start: int, stop: int) -> np.ndarray:
        """Rows [start, stop), of the array's type. Raises ZarrError."""
        parts, row = [], start
        while row < stop:
            chunk_rows = self.array.chunk_shape[0]
            first = row // chunk_rows
            kept = self._chunks(first)
            until = min(stop, (first + 1) * chunk_rows)
            parts.append(kept[row - first * chunk_rows : until - first * chunk_rows])
            row = until
        return np.concatenate(parts) if parts else np.empty((0, *self.array.shape[1:]), self.array.dtype)

    def _chunks(self, first: int) -> np.ndarray:
        """All chunks that lie side by side at the same rows, as one."""
        if self._first != first:
            array = self.array
            counts = [-(-n // c) for n, c in zip(array.shape[1:], array.chunk_shape[1:], strict=True)]
            what = f"{array.name}: bytes of the {prod(counts)} chunks of a row"
            _check(self.store.limits.excess("max_chunk_bytes", prod(counts) * array.chunk_bytes, what, ROWS))
            whole = [c * n for c, n in zip(array.chunk_shape[1:], counts, strict=True)]
            joined = np.empty((array.chunk_shape[0], *whole), array.dtype)
            for place in np.ndindex(*counts):
                at = tuple(slice(k * c, (k + 1) * c) for k, c in zip(place, array.chunk_shape[1:], strict=True))
                joined[(slice(None), *at)] = chunk(self.store, array, (first, *place))
            self._first, self._kept = first, joined[(slice(None), *(slice(n) for n in array.shape[1:]))]
        return self._kept


def chunk(store: Store, array: Array, place: tuple[int, ...]) -> np.ndarray:
    """One chunk, of the array's chunk shape. Raises ZarrError."""
    key = f"{array.name}/{array.separator.join(map(str, place))}"
    # Nothing packs by making longer, but for some bytes
    data = store.read(key, array.chunk_bytes + array.chunk_bytes // 8 + 4096)
    if data is None:
        return _unwritten(array, key)
    if array.codec_name in (*PICTURES_BY_OPENCV, JPEGXL):
        return _picture(array, key, data, store.limits)
    unpack = CODECS[array.codec_name]
    try:
        unpacked = unpack(data, array.chunk_bytes, store.limits.window_bytes)
    except DAMAGED as e:
        raise ZarrError(f"{store.name}, {key}: {_short(e)}") from e
    if len(unpacked) != array.chunk_bytes:
        raise ZarrError(f"{store.name}, {key} does not unpack to the {array.chunk_bytes:,} bytes of a chunk")
    order = "F" if array.order == "F" else "C"
    return np.frombuffer(unpacked, array.dtype).reshape(array.chunk_shape, order=order)


def _unwritten(array: Array, key: str) -> np.ndarray:
    """What stands for a chunk that is not there. Pictures are not made up, since they would look like black ones."""
    if len(array.shape) == 4 or array.fill is None:
        raise ZarrError(f"{key} was never written")
    try:
        return np.full(array.chunk_shape, float(array.fill)).astype(array.dtype)
    except (TypeError, ValueError) as e:
        raise ZarrError(f"{array.name}: its fill value is no number") from e


def _picture(array: Array, key: str, data: bytes, limits: Limits) -> np.ndarray:
    """Raises ZarrError."""
    height, width = array.chunk_shape[1:3]
    try:
        size = jpegxl_size(data) if array.codec_name == JPEGXL else encoded_size(data)
        if size != (width, height):
            told = "no picture" if size is None else f"{size[0]}x{size[1]} px"
            raise ZarrError(f"{key} is {told}, where {width}x{height} px belong")
        if array.codec_name == JPEGXL:
            # Of a file with several frames the first one: the array says that there is one
            pixels = _imagecodecs(array.name).jpegxl_decode(data, index=0, numthreads=1)
        else:
            pixels = decode_picture(data, key, limits).rgb()
        return np.asarray(pixels, array.dtype).reshape(array.chunk_shape)
    except (VideoError, JpegXlError, *DAMAGED) as e:
        raise ZarrError(f"{key}: {_short(e)}") from e


# Codecs: each unpacks no more than `size` bytes, and one more to show that there are, and looks back no further than
# `window`. They raise DAMAGED


def _stored(data: bytes, size: int, window: int) -> bytes:
    return data


def _zlib(data: bytes, size: int, window: int) -> bytes:
    return zlib.decompressobj(wbits=47).decompress(data, size + 1)  # of zlib or gzip


def _bz2(data: bytes, size: int, window: int) -> bytes:
    return bz2.BZ2Decompressor().decompress(data, size + 1)


def _lzma(data: bytes, size: int, window: int) -> bytes:
    return lzma.LZMADecompressor(memlimit=window).decompress(data, size + 1)


def _zstd(data: bytes, size: int, window: int) -> bytes:
    return zstandard.ZstdDecompressor(max_window_size=window).stream_reader(data).read(size + 1)


def _lz4(data: bytes, size: int, window: int) -> bytes:
    (claimed,) = struct.unpack_from("<I", data)
    _check_claim(claimed, size)
    return lz4.block.decompress(data)


def _blosc(data: bytes, size: int, window: int) -> bytes:
    # Version, of the format of its codec, flags and type size, a byte each; then what it unpacks to, and is
    _, _, _, _, claimed, _, stored = struct.unpack_from("<BBBBIII", data)
    _check_claim(claimed, size)
    if stored != len(data):
        raise ValueError(f"it claims to be {stored:,} bytes, and is {len(data):,}")
    return bytes(_imagecodecs("a chunk").blosc_decode(data, numthreads=1))


def _check_claim(claimed: int, size: int) -> None:
    if claimed != size:
        raise ValueError(f"it claims to unpack to {claimed:,} bytes, where {size:,} belong")


CODECS: dict[str, Callable[[bytes, int, int], bytes]] = {
    "none": _stored, "zlib": _zlib, "gzip": _zlib, "bz2": _bz2, "lzma": _lzma, "zstd": _zstd, "lz4": _lz4,
    "blosc": _blosc,
}  # fmt: skip


def _short(e: BaseException) -> str:
    return " ".join(str(e).split())[:120] or type(e).__name__
