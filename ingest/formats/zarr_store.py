"""Zarr stores that are not trusted: folders and ZIP files, their arrays, and the codecs that unpack them."""

import posixpath
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from math import prod
from pathlib import Path
from typing import Any, NamedTuple
from zipfile import ZipFile

import numpy as np

from core.errors import install_hint
from ingest.reasons import LIMITS, DataError, Limits, guarded
from ingest.sources.files import Source

ZIP_SUFFIX = ".zarr.zip"
ENDS = "meta/episode_ends"
MAX_LEVELS = 4  # of groups within groups
# What is unpacked: others, such as pickle, could run code
IMAGECODECS = ("jpegxl", "jpeg", "png", "webp")
CODECS = (
    "zlib",
    "gzip",
    "bz2",
    "lzma",
    "zstd",
    "lz4",
    "blosc",
    *(f"imagecodecs_{c}" for c in IMAGECODECS),
)


class Store(NamedTuple):
    """An open store: its group, and the keys of all chunks; the folder that it is, where it is one.

    zarr >= 3 stores no chunk that has but the fill value, so that such an array is only a folder
    with its description.
    """

    name: str
    group: Any
    keys: Sequence[str]
    folder: Path | None = None
    limits: Limits = LIMITS

    def names(self, group: str) -> list[str]:
        """What lies in a group, sorted."""
        below = f"{group}/"
        names = {key[len(below) :].partition("/")[0] for key in self.keys if key.startswith(below)}
        group_folder = self.folder / group if self.folder else None
        if group_folder is not None and group_folder.is_dir():
            names |= {
                entry.name
                for entry in group_folder.iterdir()
                if entry.is_dir() and not entry.is_symlink()
            }
        return sorted(name for name in names if name and not name.startswith("."))

    def arrays(self, group: str, level: int = 0) -> list[str]:
        """Paths of the arrays below a group, those in groups of it, too, without the group's own."""
        array_names: list[str] = []
        for name in self.names(group):
            path = f"{group}/{name}"
            if level < MAX_LEVELS and not self.is_array(path) and self.names(path):
                array_names += [f"{name}/{inner}" for inner in self.arrays(path, level + 1)]
            else:
                array_names.append(name)
        return array_names

    def is_array(self, name: str) -> bool:
        try:
            return hasattr(self.group[name], "chunks")
        except Exception:  # whatever a damaged description raises; to read the array says it again
            return True

    def texts(self, name: str) -> list[str] | None:
        """The texts of an array of them; None for one of other things. Raises DataError, also beyond the limits."""
        with guarded(f"{self.name or 'the store'}, {name}"):
            array = self.group[name]
            if not hasattr(array, "chunks"):
                return None
            filters = array.metadata.to_dict().get("filters") or []
            is_fixed = array.dtype.kind in "SU" and not filters
            is_variable = [f.get("id") for f in filters] == ["vlen-utf8"]
            if not (is_fixed or is_variable) or len(array.shape) > 1:
                return None
            # What is not stored is the fill value, of any length and as often as the description claims
            self.limits.check("max_rows", array.size, f"{name}: texts")
            self.limits.check(
                "max_bytes", array.size * array.dtype.itemsize, f"{name}: bytes of texts"
            )
            chunk_bytes = prod(array.chunks) * array.dtype.itemsize
            self.limits.check("max_chunk_bytes", chunk_bytes, f"{name}: bytes of a chunk")
            return [
                text.decode("utf-8", "replace") if isinstance(text, bytes) else str(text)
                for text in np.asarray(array[...]).ravel().tolist()
            ]

    def array(self, name: str) -> Any:
        """The array at a name; None for none, or for one of no numbers. Raises DataError."""
        with guarded(f"{self.name or 'the store'}, {name}"):
            try:
                array = self.group[name]
            except KeyError:
                return None
            if not hasattr(array, "chunks"):
                return None
            metadata = array.metadata.to_dict()
        if array.dtype.kind not in "fiub" or not array.shape:
            return None
        codec = metadata.get("compressor")
        if metadata.get("filters"):
            raise DataError(
                f"{name} is stored through filters, which are not read", "unknown_codec"
            )
        if codec and codec.get("id") not in CODECS:
            raise DataError(
                f"{name} is packed by {str(codec.get('id'))[:40]!r}, which is not read",
                "unknown_codec",
            )
        if codec and codec["id"].startswith("imagecodecs") and array.chunks[0] != 1:
            raise DataError(
                f"{name} has several pictures in one that is packed by {codec['id']}",
                "unknown_codec",
            )
        return array


@contextmanager
def opened(source: Source, uri: str) -> Iterator[Store]:
    """The store in a ZIP file, or in the folder that holds a chunk of where its episodes end. Raises DataError."""
    try:
        import imagecodecs.numcodecs
        import numcodecs
        from zarr import errors, open_group, storage
    except ImportError as e:
        raise DataError(
            f"Zarr stores need further packages ({e}): {install_hint('zarr')}", "unknown_codec"
        ) from e
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

    with guarded(uri):
        if not uri.endswith(ZIP_SUFFIX):
            name = uri.rpartition(f"{ENDS}/")[0].rstrip("/")
            below = f"{name}/" if name else ""
            keys = [uri.removeprefix(below) for uri in source.files if uri.startswith(below)]
            store = Inside(source.root / name, read_only=True)
            path = ""
        else:
            name, listed = uri, _members(source, uri)
            ends = [key for key in listed if key.endswith(f"{ENDS}/.zarray")]
            path = min(ends, key=len, default="").removesuffix(f"{ENDS}/.zarray")
            keys = [key.removeprefix(path) for key in listed if key.startswith(path)]
            store = storage.ZipStore(source.resolve(uri), read_only=True)
        try:
            group = open_group(
                store, mode="r", path=path.rstrip("/"), zarr_format=2, use_consolidated=False
            )
        except errors.GroupNotFoundError as e:
            raise DataError(
                f"{name or 'the store'} is no store of Zarr 2: write it with zarr_format=2"
            ) from e
        limits.check(
            "max_features",
            len({key.rpartition("/")[0] for key in keys}),
            f"{name or 'the store'}: arrays",
        )
        folder = None if uri.endswith(ZIP_SUFFIX) else source.root / name
        yield Store(name, group, keys, folder, limits)


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
