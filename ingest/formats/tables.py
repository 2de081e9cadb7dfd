"""Rows of numbers as Arrow tables, a column of float64 for each dimension, by name; read of Parquet and NumPy files."""

import io
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from functools import lru_cache
from itertools import chain
from math import prod
from pathlib import Path
from tokenize import TokenError
from typing import IO, Any
from zipfile import BadZipFile, ZipFile

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from core.files import file_version
from ingest.formats.tree import Part
from ingest.reasons import LIMITS, DataError, Limits, guarded
from ingest.sources.files import Source
from ingest.sources.types import refuse_pointer

MIN_FPS, MAX_FPS = 1e-3, 1e3  # no camera and no robot is slower or faster

# In what files and columns state of a number that stands for no value
MISSING_NAMES = ("missing_value", "_FillValue", "fill_value", "invalid_value", "sentinel")
# What pyarrow raises for damaged files, for names twice or that are no text, and for values that Python has not
PARQUET_ERRORS = (OSError, pa.ArrowException, ValueError, LookupError, OverflowError, MemoryError)
BATCH, BATCH_BYTES = 1 << 16, 1 << 28  # rows, and bytes of one column, read at a time
MAX_HEADER_BYTES = 1 << 16

# What NumPy lets through for damaged headers, which it reads as Python; and what a damaged, encrypted or otherwise
# packed ZIP file raises, which a .npz file is
DAMAGED = (
    OSError,
    ValueError,
    EOFError,
    SyntaxError,
    TokenError,
    TypeError,
    OverflowError,
    RecursionError,
    MemoryError,
    BadZipFile,
    zlib.error,
    RuntimeError,
    KeyError,
)


def numbers(values: np.ndarray, names: Sequence[str] = ()) -> pa.Table:
    """Of an array [n, ...] of which each row is a vector; "" names the dimensions that nothing names."""
    flat = np.asarray(values, np.float64).reshape(len(values), prod(values.shape[1:]))
    return pa.Table.from_arrays(
        [pa.array(column) for column in flat.T], list(names) or [""] * flat.shape[1]
    )


def known_values(values: np.ndarray, stated: Mapping[str, Any]) -> np.ndarray:
    """Values with NaN where they are the number that stands for none, as what is `stated` of them says."""
    for name in MISSING_NAMES:
        number = np.asarray(stated.get(name)).reshape(-1)[:1]
        if (
            number.dtype.kind in "if" and number.all()
        ):  # a 0 is what files are filled with before they are written
            values = np.where(values.astype(np.float32) == np.float32(number), np.nan, values)
    return values


def numbered(name: str, width: int) -> list[str]:
    """Example: numbered("joint", 2) == ["joint.0", "joint.1"]."""
    return [f"{name}.{k}" for k in range(width)]


def numbered_if_several(name: str, width: int) -> list[str]:
    """Example: numbered_if_several("joint", 1) == ["joint"]."""
    return [name] if width == 1 else numbered(name, width)


def side_by_side(tables: Iterable[pa.Table]) -> pa.Table | None:
    """Tables of the same rows as one; None for none. Raises DataError when their lengths differ."""
    tables = list(tables)
    if len({table.num_rows for table in tables}) > 1:
        raise DataError(
            f"state or action parts have different lengths: {[table.num_rows for table in tables]}"
        )
    columns = list(chain.from_iterable(table.columns for table in tables))
    names = list(chain.from_iterable(table.column_names for table in tables))
    if columns:
        return pa.Table.from_arrays(columns, names)
    return None


def is_list(type_: pa.DataType) -> bool:
    return (
        pa.types.is_list(type_)
        or pa.types.is_large_list(type_)
        or pa.types.is_fixed_size_list(type_)
    )


def vectors(column: pa.ChunkedArray, name: str, *, singles: bool = False) -> np.ndarray | None:
    """float64 [n, d] of a column of numbers, or of lists of them of any depth; None for other
    things, and for nothing.

    A column of single whole numbers counts something, and flags say something: these are no
    vectors, unless `singles` asks for them. A row that is null or empty is one of NaN. Raises DataError when
    others differ in length, and for a flag that is null.
    """
    flat = column.combine_chunks()
    if is_list(flat.type):
        lengths, _ = _unpacked(flat)
        has_values = lengths > 0
        if has_values.any() and not has_values.all():
            filled = pa.chunked_array([flat.filter(pa.array(has_values))])
            if (values := vectors(filled, name)) is None:
                return None
            rows = np.full((len(flat), values.shape[1]), np.nan)
            rows[has_values] = values
            return rows
    while is_list(flat.type):
        lengths, values = _unpacked(flat)
        if flat.null_count or (lengths != lengths[:1]).any():
            raise DataError(f"column {name}: rows of different length")
        flat = values
    is_flag = pa.types.is_boolean(flat.type)
    is_whole = pa.types.is_integer(flat.type) and (singles or is_list(column.type))
    is_vector = pa.types.is_floating(flat.type) or is_whole or (is_flag and singles)
    if not is_vector or not len(flat):
        return None
    if is_flag and flat.null_count:
        raise DataError(f"column {name}: a flag is null")
    return np.asarray(flat.to_numpy(zero_copy_only=False), np.float64).reshape(len(column), -1)


def _unpacked(lists: pa.Array) -> tuple[np.ndarray, pa.Array]:
    """How many values each list has, 0 where it is null, and all values in order; those behind null, too.

    Not by Arrow's functions, which take 0.04 s to import.
    """
    if pa.types.is_fixed_size_list(lists.type):
        offsets = lists.type.list_size * np.arange(lists.offset, lists.offset + len(lists) + 1)
    else:
        offsets = np.asarray(lists.offsets)
    lengths = np.diff(offsets)
    if lists.null_count:
        lengths = lengths * np.asarray(lists.is_valid())
    return lengths, lists.values.slice(offsets[0], offsets[-1] - offsets[0])


def stated_vectors(stored: Sequence[Any], name: str) -> np.ndarray | None:
    """As `vectors`, of a value for each row as JSON has it; also of single whole numbers. Raises DataError."""
    try:
        return vectors(pa.chunked_array([pa.array(stored)]), name, singles=True)
    except (pa.ArrowException, OverflowError) as e:
        raise DataError(f"{name} holds more than numbers") from e


def finite(value: Any) -> float | None:
    """A number that the lake can hold, too, as a whole number."""
    is_finite_number = (
        isinstance(value, int | float) and not isinstance(value, bool) and -(2**53) < value < 2**53
    )
    if is_finite_number:
        return float(value)
    return None


def whole(value: Any) -> int | None:
    """A whole number; None for null, NaN (which is how pandas writes a null among integers) and anything else."""
    number = finite(value)
    if number is not None and number == int(number):
        return int(number)
    return None


def rate_of(value: Any) -> float | None:
    """Frames per second, when a value can be that: a number, or an array of one."""
    if isinstance(value, np.ndarray | np.generic) and value.size == 1:
        value = value.item()
    fps = finite(value)
    if fps is not None and MIN_FPS <= fps <= MAX_FPS:
        return fps
    return None


# Parquet, read in parts: a file of LeRobot v3 holds many episodes


@contextmanager
def opened(path: Path) -> Iterator[pq.ParquetFile]:
    """A table. Raises DataError, also for what pyarrow raises inside the block."""
    with guarded(path.name, PARQUET_ERRORS):
        with path.open("rb") as f:
            refuse_pointer(f.read(64), f"{path.name}: is a git-LFS pointer")
        with pq.ParquetFile(path) as file:
            yield file


def batches(
    file: pq.ParquetFile, columns: Sequence[str], size: int | None = None, first_group: int = 0
) -> Iterator[pa.RecordBatch]:
    """By one thread: an episode's rows are few, and to hand them to others takes longer than to read them."""
    groups = range(first_group, file.num_row_groups)
    size = min(size or BATCH, _rows_at_once(file, columns, groups))
    return file.iter_batches(size, list(groups), list(columns), use_threads=False)


def _rows_at_once(file: pq.ParquetFile, columns: Sequence[str], groups: range) -> int:
    """How many rows of some columns may be read at a time."""
    size = BATCH
    column_prefixes = tuple(f"{name}." for name in columns)
    for k in range(len(file.schema)):
        leaf = file.schema.column(k)
        if leaf.physical_type == "BYTE_ARRAY" and f"{leaf.path}.".startswith(column_prefixes):
            # A text that is stored once may be that of every row
            max_group_bytes = max(
                (file.metadata.row_group(g).column(k).total_uncompressed_size for g in groups),
                default=0,
            )
            size = min(size, max(1, BATCH_BYTES // max(max_group_bytes, 1)))
    return size


def ranges(
    file: pq.ParquetFile,
    places: Sequence[tuple[int, int]],
    columns: Sequence[str],
    size: int | None = None,
) -> Iterator[pa.Table]:
    """Some columns of ranges of rows, (first row, how many) each, in one pass. The ranges are in order, and apart."""
    ends = np.cumsum([file.metadata.row_group(i).num_rows for i in range(file.num_row_groups)])
    first_group = int(np.searchsorted(ends, places[0][0], side="right"))
    start_row = int(ends[first_group - 1]) if first_group else 0
    parts = []
    waiting = list(places)[::-1]
    # What comes after the last range is not decoded
    for batch in batches(
        file, columns, min(size or BATCH, max(sum(places[-1]) - start_row, 1)), first_group
    ):
        end = start_row + batch.num_rows
        # The ranges that end in this batch, and what it has of one that goes on
        while waiting and waiting[-1][0] < end:
            start, count = waiting[-1]
            parts.append(
                batch.slice(
                    max(start - start_row, 0), min(start + count, end) - max(start, start_row)
                )
            )
            if start + count > end:
                break
            yield pa.Table.from_batches(parts)
            parts = []
            waiting.pop()
        if not waiting:
            return
        start_row = end


def read_columns(
    path: Path, start: int, count: int, columns: Sequence[str], limits: Limits = LIMITS
) -> pa.Table:
    """Those of some columns that are there, of rows start .. start + count of a table.

    Raises DataError, also for more rows, or more values of a column, than an episode may have.
    """
    limits.check("max_rows", count, f"{path.name}: rows")
    whole = _whole_columns(path, file_version(path), tuple(columns))
    if whole is not None and start + count <= whole.num_rows:
        table = whole.slice(start, count)
    else:
        with opened(path) as file:
            names = file.schema_arrow.names
            if twice := [column for column in columns if names.count(column) > 1]:
                raise DataError(
                    f"{path.name}: column {twice[0]} is there {names.count(twice[0])} times"
                )
            if start + count > file.metadata.num_rows:
                raise DataError(f"{path.name}: no row {start + count - 1}")
            [table] = ranges(
                file, [(start, count)], [column for column in columns if column in names]
            )
    for name in table.column_names:
        column = table[name]
        while is_list(column.type):
            column = pa.chunked_array(
                [_unpacked(chunk)[1] for chunk in column.chunks], column.type.value_type
            )
        limits.check("max_values", len(column), f"{path.name}: values of {name}")
    return table


def has_numbers(schema: pa.Schema, column: str, only_whole: bool = False) -> bool:
    """One number or boolean per row, by itself or in a list of one; `only_whole`: a whole number by itself."""
    if schema.names.count(column) != 1:
        return False
    type_ = schema.field(column).type
    if only_whole:
        return pa.types.is_integer(type_)
    type_ = type_.value_type if is_list(type_) else type_
    return pa.types.is_boolean(type_) or pa.types.is_integer(type_) or pa.types.is_floating(type_)


def single_numbers(chunks: pa.ChunkedArray) -> np.ndarray:
    """float64 [n], NaN for null, and for all where rows hold several."""
    column = chunks.combine_chunks()
    if not is_list(column.type):
        return np.asarray(column.to_numpy(zero_copy_only=False), np.float64)
    numbers = np.full(len(column), np.nan)
    is_list_there = np.ones(len(column), bool)
    # Most columns have all lists: Arrow's functions, which cost a start 0.02 s, are imported for the others
    if column.null_count:
        is_list_there = np.asarray(column.is_valid())
        column = column.drop_null()
    lengths, values = _unpacked(column)
    if (lengths == 1).all():
        numbers[is_list_there] = values.to_numpy(zero_copy_only=False)
    return numbers


def number_columns(source: Source, uri: str, names: Sequence[str]) -> dict[str, Any]:
    """Lists of the one number that columns of a table have in each row, by name; NaN for null, and for all of a column
    that is not there, or holds other things. Raises DataError.
    """
    with opened(source.resolve(uri)) as file:
        count = file.metadata.num_rows
        source.config.limits.check("max_rows", count, f"{uri}: rows")
        schema = file.schema_arrow
        table = file.read([n for n in names if has_numbers(schema, n)], use_threads=False)
    columns = dict.fromkeys(names, [float("nan")] * count)
    return columns | {n: single_numbers(table[n]).tolist() for n in table.column_names}


@lru_cache(maxsize=4)
def _whole_columns(
    path: Path, version: tuple[int, int], columns: tuple[str, ...]
) -> pa.Table | None:
    """Columns of all rows, kept for the other episodes of the file; None: they are too many, or
    cannot be read, which need not concern an episode."""
    with suppress(DataError), opened(path) as file:
        names = [name for name in file.schema_arrow.names if name in columns]
        at_once = _rows_at_once(file, names, range(file.num_row_groups))
        if file.metadata.num_rows <= at_once and len(set(names)) == len(names):
            return file.read(names, use_threads=False)
    return None


# NumPy files. Nothing in them is unpickled: that could run code


def read_npy(source: Source, uri: str) -> np.ndarray:
    """Rows [n, d] of a .npy file, mapped, not read. Raises DataError, of reason pickled_data for pickled objects."""
    return npy_rows(source.resolve(uri), uri, source.config.limits)


def npy_rows(path: Path, uri: str, limits: Limits = LIMITS) -> np.ndarray:
    """As read_npy, of a file that is in no source; `uri` names it in errors."""
    with guarded(uri, DAMAGED):
        with path.open("rb") as file:
            shape, dtype = _read_header(file, uri)
        if dtype.hasobject:
            raise DataError(f"{uri} is pickled", "pickled_data")
        if not _are_rows(shape, dtype):
            raise DataError(f"{uri} holds no rows of numbers: {dtype} {shape}")
        limits.check("max_values", float(np.prod(shape, dtype=float)), f"{uri}: numbers")
        stored = np.load(path, mmap_mode="r", allow_pickle=False)
    return stored.reshape(len(stored), -1)


def read_npz(source: Source, uri: str) -> dict[str, np.ndarray]:
    """The arrays of a .npz file that are rows of numbers, [n, d], by name.

    Raises DataError where there is none, of reason pickled_data where those that could be are pickled.
    """
    limits = source.config.limits
    arrays: dict[str, np.ndarray] = {}
    is_pickled = False
    num_values = 0
    with guarded(uri, DAMAGED), source.open(uri) as file, ZipFile(file) as archive:
        for name, shape, dtype in _headers(archive, uri, limits):
            is_pickled |= dtype.hasobject
            if not _are_rows(shape, dtype):
                continue
            # Of a packed file the header says how much would be unpacked
            num_values += int(np.prod(shape, dtype=object))
            limits.check("max_values", num_values, f"{uri}: numbers")
            with archive.open(f"{name}.npy") as packed:
                stored = np.lib.format.read_array(packed, allow_pickle=False)
            arrays[name] = stored.reshape(len(stored), -1)
    if not arrays and is_pickled:
        raise DataError(f"{uri} is pickled", "pickled_data")
    if not arrays:
        raise DataError(f"{uri} holds no rows of numbers")
    return arrays


def others_in_npz(source: Source, uri: str) -> list[Part]:
    """Those arrays of a .npz file that hold something, and are no rows of numbers; the file could be read."""
    with source.open(uri) as file, ZipFile(file) as archive:
        return [
            Part(name, "array", shape, str(dtype), uri, is_picture=True)
            for name, shape, dtype in _headers(archive, uri, source.config.limits)
            if not _are_rows(shape, dtype) and 0 not in shape
        ]


def _headers(
    archive: ZipFile, uri: str, limits: Limits
) -> Iterator[tuple[str, tuple[int, ...], np.dtype]]:
    """Names, shapes and types of arrays. Raises DAMAGED and DataError."""
    members = [name for name in archive.namelist() if name.endswith(".npy")]
    limits.check("max_features", len(members), f"{uri}: arrays")
    for member in members:
        with archive.open(member) as packed:
            header = _read_header(packed, uri)
        yield member.removesuffix(".npy"), *header


def _read_header(file: IO[bytes], uri: str) -> tuple[tuple[int, ...], np.dtype]:
    """Shape and type of an array. Raises DAMAGED, and DataError for a git-LFS pointer."""
    # NumPy reads all that a header claims, before it looks at it
    begin = file.read(MAX_HEADER_BYTES)
    refuse_pointer(begin, f"{uri} is a git-LFS pointer, not the file")
    file = io.BytesIO(begin)
    if np.lib.format.read_magic(file) == (1, 0):
        read = np.lib.format.read_array_header_1_0
    else:
        read = np.lib.format.read_array_header_2_0
    shape, _, dtype = read(file)
    return shape, dtype


def _are_rows(shape: tuple[int, ...], dtype: np.dtype) -> bool:
    return dtype.kind in "fiub" and len(shape) in (1, 2) and 0 not in shape
