"""Parquet tables of a dataset, read in parts: a file of LeRobot v3 holds many episodes."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from ingest.formats.numbers import is_list
from ingest.limits import LIMITS, Limits
from ingest.reasons import DataError
from ingest.sources.types import refuse_pointer

# What pyarrow raises for damaged files, for names twice or that are no text, and for values that Python has not
PARQUET_ERRORS = (OSError, pa.ArrowException, ValueError, LookupError, OverflowError, MemoryError)
BATCH, BATCH_BYTES = 1 << 16, 1 << 28  # rows, and bytes of one column, read at a time


@contextmanager
def opened(path: Path) -> Iterator[pq.ParquetFile]:
    """A table. Raises DataError, also for what pyarrow raises inside the block."""
    try:
        with path.open("rb") as f:
            refuse_pointer(f.read(64), f"{path.name}: is a git-LFS pointer")
        with pq.ParquetFile(path) as file:
            yield file
    except PARQUET_ERRORS as e:
        raise DataError(f"{path.name}: cannot be read ({first_line(e)})") from e


def first_line(e: Exception) -> str:
    return str(e).split("\n", 1)[0] or type(e).__name__


def batches(
    file: pq.ParquetFile, columns: Sequence[str], size: int | None = None, first_group: int = 0
) -> Iterator[pa.RecordBatch]:
    """By one thread: an episode's rows are few, and to hand them to others takes longer than to read them."""
    groups, size = range(first_group, file.num_row_groups), size or BATCH
    within = tuple(f"{name}." for name in columns)
    for k in range(len(file.schema)):
        leaf = file.schema.column(k)
        if leaf.physical_type == "BYTE_ARRAY" and f"{leaf.path}.".startswith(within):
            # A text that is stored once may be that of every row
            most = max((file.metadata.row_group(g).column(k).total_uncompressed_size for g in groups), default=0)
            size = min(size, max(1, BATCH_BYTES // max(most, 1)))
    return file.iter_batches(size, list(groups), list(columns), use_threads=False)


def ranges(
    file: pq.ParquetFile, places: Sequence[tuple[int, int]], columns: Sequence[str], size: int | None = None
) -> Iterator[pa.Table]:
    """Some columns of ranges of rows, (first row, how many) each, in one pass. The ranges are in order, and apart."""
    ends = np.cumsum([file.metadata.row_group(i).num_rows for i in range(file.num_row_groups)])
    first_group = int(np.searchsorted(ends, places[0][0], side="right"))
    at, parts, waiting = int(ends[first_group - 1]) if first_group else 0, [], list(places)[::-1]
    for batch in batches(file, columns, size, first_group):
        end = at + batch.num_rows
        # The ranges that end in this batch, and what it has of one that goes on
        while waiting and waiting[-1][0] < end:
            start, count = waiting[-1]
            parts.append(batch.slice(max(start - at, 0), min(start + count, end) - max(start, at)))
            if start + count > end:
                break
            yield pa.Table.from_batches(parts)
            parts = []
            waiting.pop()
        if not waiting:
            return
        at = end


def read_columns(path: Path, start: int, count: int, columns: Sequence[str], limits: Limits = LIMITS) -> pa.Table:
    """Those of some columns that are there, of rows start .. start + count of a table.

    Raises DataError, also for more rows, or more values of a column, than an episode may have.
    """
    limits.check("max_rows", count, f"{path.name}: rows")
    with opened(path) as file:
        names = file.schema_arrow.names
        if twice := [column for column in columns if names.count(column) > 1]:
            raise DataError(f"{path.name}: column {twice[0]} is there {names.count(twice[0])} times")
        if start + count > file.metadata.num_rows:
            raise DataError(f"{path.name}: no row {start + count - 1}")
        [table] = ranges(file, [(start, count)], [column for column in columns if column in names])
    for name in table.column_names:
        limits.check("max_values", _num_values(table[name]), f"{path.name}: values of {name}")
    return table


def _num_values(column: pa.ChunkedArray) -> int:
    while is_list(column.type):
        column = pa.chunked_array([chunk.flatten() for chunk in column.chunks], column.type.value_type)
    return len(column)
