"""NumPy files that hold rows of numbers. Nothing in them is unpickled: that could run code."""

import io
import zlib
from pathlib import Path
from tokenize import TokenError
from typing import IO
from zipfile import BadZipFile, ZipFile

import numpy as np

from ingest.limits import LIMITS, Limits
from ingest.reasons import DataError
from ingest.sources.files import Source
from ingest.sources.types import refuse_pointer

MAX_HEADER_BYTES = 1 << 16

# What NumPy lets through for damaged headers, which it reads as Python; and what a damaged, encrypted or otherwise
# packed ZIP file raises, which a .npz file is
DAMAGED = (OSError, ValueError, EOFError, SyntaxError, TokenError, TypeError, OverflowError, RecursionError)
DAMAGED += (MemoryError, BadZipFile, zlib.error, RuntimeError, KeyError)


def read_npy(source: Source, uri: str) -> np.ndarray:
    """Rows [n, d] of a .npy file, mapped, not read. Raises DataError, of reason pickled_data for pickled objects."""
    return npy_rows(source.resolve(uri), uri, source.config.limits)


def npy_rows(path: Path, uri: str, limits: Limits = LIMITS) -> np.ndarray:
    """As read_npy, of a file that is in no source; `uri` names it in errors."""
    try:
        with path.open("rb") as file:
            shape, dtype = _read_header(file, uri)
        if dtype.hasobject:
            raise DataError(f"{uri} is pickled", "pickled_data")
        if not _are_rows(shape, dtype):
            raise DataError(f"{uri} holds no rows of numbers: {dtype} {shape}")
        limits.check("max_values", float(np.prod(shape, dtype=float)), f"{uri}: numbers")
        stored = np.load(path, mmap_mode="r", allow_pickle=False)
    except DAMAGED as e:
        raise DataError(f"{uri} is no array that can be read ({e})") from e
    return stored.reshape(len(stored), -1)


def read_npz(source: Source, uri: str) -> dict[str, np.ndarray]:
    """The arrays of a .npz file that are rows of numbers, [n, d], by name.

    Raises DataError where there is none, of reason pickled_data where those that could be are pickled.
    """
    limits = source.config.limits
    arrays: dict[str, np.ndarray] = {}
    is_pickled, num_values = False, 0
    try:
        with source.open(uri) as file, ZipFile(file) as archive:
            members = [member for member in archive.infolist() if member.filename.endswith(".npy")]
            limits.check("max_features", len(members), f"{uri}: arrays")
            for member in members:
                with archive.open(member) as packed:
                    shape, dtype = _read_header(packed, uri)
                is_pickled |= dtype.hasobject
                if not _are_rows(shape, dtype):
                    continue
                # Of a packed file the header says how much would be unpacked
                num_values += int(np.prod(shape, dtype=object))
                limits.check("max_values", num_values, f"{uri}: numbers")
                with archive.open(member) as packed:
                    stored = np.lib.format.read_array(packed, allow_pickle=False)
                arrays[member.filename.removesuffix(".npy")] = stored.reshape(len(stored), -1)
    except DAMAGED as e:
        raise DataError(f"{uri} cannot be read ({e})") from e
    if not arrays:
        raise DataError(*(f"{uri} is pickled", "pickled_data") if is_pickled else (f"{uri} holds no rows of numbers",))
    return arrays


def _read_header(file: IO[bytes], uri: str) -> tuple[tuple[int, ...], np.dtype]:
    """Shape and type of an array. Raises DAMAGED, and DataError for a git-LFS pointer."""
    begin = file.read(MAX_HEADER_BYTES)  # NumPy reads all that a header claims, before it looks at it
    refuse_pointer(begin, f"{uri} is a git-LFS pointer, not the file")
    file = io.BytesIO(begin)
    version = np.lib.format.read_magic(file)
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, _, dtype = read(file)
    return shape, dtype


def _are_rows(shape: tuple[int, ...], dtype: np.dtype) -> bool:
    return dtype.kind in "fiub" and len(shape) in (1, 2) and 0 not in shape
