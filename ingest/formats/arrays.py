"""NumPy files that hold rows of numbers. Nothing in them is unpickled: that could run code."""

import zlib
from pathlib import Path
from tokenize import TokenError
from typing import IO
from zipfile import BadZipFile, ZipFile

import numpy as np

from ingest.episode import RowsError
from ingest.limits import LIMITS, Limits
from ingest.media.video import LFS_MARK
from ingest.sources.files import Source

# What NumPy lets through for damaged headers, which it reads as Python
HEADER_ERRORS = (OSError, ValueError, EOFError, SyntaxError, TokenError, TypeError)
HEADER_ERRORS += (OverflowError, RecursionError, MemoryError)
# And what a damaged, encrypted or otherwise packed ZIP file raises, which a .npz file is
ZIP_ERRORS = (*HEADER_ERRORS, BadZipFile, zlib.error, RuntimeError, KeyError)


class PickledError(Exception):
    """An array file that holds pickled Python objects."""


def read_npy(source: Source, uri: str) -> np.ndarray:
    """Rows [n, d] of a .npy file, mapped, not read. Raises RowsError, and PickledError for pickled objects."""
    return npy_rows(source.resolve(uri), uri, source.config.limits)


def npy_rows(path: Path, uri: str, limits: Limits = LIMITS) -> np.ndarray:
    """As read_npy, of a file that is in no source; `uri` names it in errors."""
    try:
        _check_header(path, uri, limits)
        stored = np.load(path, mmap_mode="r", allow_pickle=False)
    except HEADER_ERRORS as e:
        raise RowsError(f"{uri} is no array that can be read ({e})") from e
    return stored.reshape(len(stored), -1)


def read_npz(source: Source, uri: str) -> dict[str, np.ndarray]:
    """The arrays of a .npz file that are rows of numbers, [n, d], by name.

    Raises RowsError where there is none, and PickledError where those that could be are pickled.
    """
    try:
        with source.resolve(uri).open("rb") as file:
            _check_is_no_pointer(file, uri)
            with ZipFile(file) as archive:
                arrays, is_pickled = _arrays(archive, uri, source.config.limits)
    except ZIP_ERRORS as e:
        raise RowsError(f"{uri} cannot be read ({e})") from e
    if not arrays and is_pickled:
        raise PickledError(uri)
    if not arrays:
        raise RowsError(f"{uri} holds no rows of numbers")
    return arrays


def _arrays(archive: ZipFile, uri: str, limits: Limits) -> tuple[dict[str, np.ndarray], bool]:
    """Its rows of numbers, and whether another array is pickled. Raises RowsError for too many, or too large ones."""
    members = [member for member in archive.infolist() if member.filename.endswith(".npy")]
    if problem := limits.excess("max_features", len(members), f"{uri}: arrays"):
        raise RowsError(problem, "over_limit")
    arrays: dict[str, np.ndarray] = {}
    is_pickled, num_values = False, 0
    for member in members:
        with archive.open(member) as file:
            shape, dtype = _read_header(file)
        is_pickled |= dtype.hasobject
        if not _are_rows(shape, dtype):
            continue
        # Of a packed file the header says how much would be unpacked
        num_values += int(np.prod(shape, dtype=object))
        if problem := limits.excess("max_values", num_values, f"{uri}: numbers"):
            raise RowsError(problem, "over_limit")
        with archive.open(member) as file:
            stored = np.lib.format.read_array(file, allow_pickle=False)
        arrays[member.filename.removesuffix(".npy")] = stored.reshape(len(stored), -1)
    return arrays, is_pickled


def _check_header(path: Path, uri: str, limits: Limits) -> None:
    """Raises RowsError or PickledError for what are no rows of numbers, and HEADER_ERRORS for what is damaged."""
    with path.open("rb") as file:
        _check_is_no_pointer(file, uri)
        shape, dtype = _read_header(file)
    if dtype.hasobject:
        raise PickledError(uri)
    if not _are_rows(shape, dtype):
        raise RowsError(f"{uri} holds no rows of numbers: {dtype} {shape}")
    if problem := limits.excess("max_values", float(np.prod(shape, dtype=float)), f"{uri}: numbers"):
        raise RowsError(problem, "over_limit")


def _check_is_no_pointer(file: IO[bytes], uri: str) -> None:
    """Raises RowsError for a git-LFS pointer; else the file is at its beginning again."""
    if file.read(len(LFS_MARK)) == LFS_MARK:
        raise RowsError(f"{uri} is a git-LFS pointer, not the file", "lfs_pointer")
    file.seek(0)


def _read_header(file: IO[bytes]) -> tuple[tuple[int, ...], np.dtype]:
    """Shape and type of an array. Raises HEADER_ERRORS."""
    version = np.lib.format.read_magic(file)
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, _, dtype = read(file)
    return shape, dtype


def _are_rows(shape: tuple[int, ...], dtype: np.dtype) -> bool:
    return dtype.kind in "fiub" and len(shape) in (1, 2) and 0 not in shape
