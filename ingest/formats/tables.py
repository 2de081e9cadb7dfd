"""Parquet tables of a dataset, read in parts that fit into memory whatever the file claims.

A few bytes can stand for a million rows, and a text that is stored once can be every row's. So texts are read as
places in a dictionary, and written out only once it is known how long they get; and how many rows are read at a time
goes by the widest of them.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from ingest.episode import RowsError
from ingest.limits import Limits

TEXTS = ("STRING", "JSON", "ENUM")  # logical types of Parquet
BATCH_VALUES = 1 << 22  # numbers read at a time
MAX_DEPTH = 32  # of columns within columns
CHUNK = 4  # times what an episode may have: what lies together in a file of many episodes


def check_rows(file: pq.ParquetFile, path: Path, limits: Limits, *, of_one: bool) -> None:
    """Raises RowsError for a table with more rows than an episode may have (`of_one`), or than its file has bytes."""
    num_rows = file.metadata.num_rows
    if of_one:
        check(limits.excess("max_rows", num_rows, f"{path.name}: rows"))
    # Rows with a time or a number of their own take a byte at least
    num_bytes = path.stat().st_size
    if num_rows > num_bytes:
        check(f"{path.name}: {num_rows:,} rows in {num_bytes:,} bytes")


def check(problem: str) -> None:
    """Raises RowsError, as a finding over_limit, for what `Limits.excess` says."""
    if problem:
        raise RowsError(problem, "over_limit")


def batches(
    file: pq.ParquetFile,
    path: Path,
    columns: Sequence[str],
    limits: Limits,
    size: int,
    groups: Sequence[int] | None = None,
) -> Iterator[pa.RecordBatch]:
    """Some columns of some row groups (default: all) of a table, at most `size` rows at a time.

    By one thread: an episode's rows are few, and to hand them to others takes longer than to read them.

    Raises RowsError (over_limit) for a value or a row group beyond the limits, and what pyarrow raises.
    """
    groups = range(file.num_row_groups) if groups is None else groups
    chunks = [chunk for group in groups for chunk in _chunks(file, group, columns, limits)]
    for values_per_row, chunk, is_text, is_number in chunks:
        what = f"{path.name}: {chunk.path_in_schema}"
        if is_number:
            check(limits.excess("max_values", chunk.num_values, f"{what}: values in one row group", CHUNK))
            size = min(size, max(1, int(BATCH_VALUES / max(values_per_row, 1))))
            continue
        check(limits.excess("max_bytes", chunk.total_uncompressed_size, f"{what}: bytes in one row group", CHUNK))
        # A text is looked at before it is written out; bytes, such as pictures, may each be as large as all of them
        if not is_text:
            most = chunk.total_uncompressed_size * max(values_per_row, 1)
            size = min(size, max(1, int(CHUNK * limits.max_bytes / max(most, 1))))
    texts = sorted({chunk.path_in_schema for _, chunk, is_text, _ in chunks if is_text})
    if not texts:
        for batch in file.iter_batches(size, list(groups), list(columns), use_threads=False):
            yield from _fitting(batch, path, limits)
        return
    plain = file.schema_arrow
    with pq.ParquetFile(path, metadata=file.metadata, read_dictionary=texts) as coded:
        for batch in coded.iter_batches(size, list(groups), list(columns), use_threads=False):
            schema = pa.schema([plain.field(name) for name in batch.schema.names])
            for part in _fitting(batch, path, limits):
                yield part.cast(schema)


def _chunks(
    file: pq.ParquetFile, group: int, columns: Sequence[str], limits: Limits
) -> Iterator[tuple[float, Any, bool, bool]]:
    """Of each leaf of some columns: values per row, its column chunk, and whether it is of texts or of numbers.

    Texts within lists and structs count as bytes while a row of them must be small: Arrow reads dictionaries of such
    texts in some files only.
    """
    row_group = file.metadata.row_group(group)
    for k in range(row_group.num_columns):
        leaf = file.schema.column(k)
        parts = leaf.path.split(".")
        if parts[0] not in columns and leaf.path not in columns:
            continue
        if len(parts) > MAX_DEPTH:
            check(f"column {parts[0][:40]}: {len(parts)} levels of columns within columns")
        chunk = row_group.column(k)
        is_bytes = leaf.physical_type == "BYTE_ARRAY"
        values_per_row = chunk.num_values / max(row_group.num_rows, 1)
        # Each value may be as long as all that is stored
        is_large = values_per_row * chunk.total_uncompressed_size > CHUNK * limits.max_bytes
        is_text = is_bytes and leaf.logical_type.type in TEXTS and (len(parts) == 1 or is_large)
        yield values_per_row, chunk, is_text, not is_bytes


def _fitting(batch: pa.RecordBatch, path: Path, limits: Limits) -> Iterator[pa.RecordBatch]:
    """Parts of a batch whose texts, written out, are within the limits. Raises RowsError for a row that is not."""
    num_bytes = sum(map(_written_out, batch.columns))
    if num_bytes <= limits.max_bytes:
        yield batch
        return
    if batch.num_rows == 1:
        check(limits.excess("max_bytes", num_bytes, f"{path.name}: bytes of one row"))
    half = batch.num_rows // 2
    yield from _fitting(batch.slice(0, half), path, limits)
    yield from _fitting(batch.slice(half), path, limits)


def _written_out(array: pa.Array) -> int:
    """Bytes of an array whose texts stand in a dictionary, once each is written out."""
    type_ = array.type
    if pa.types.is_dictionary(type_):
        import pyarrow.compute as pc  # here: it takes longer to import than pyarrow itself

        lengths = np.asarray(pc.fill_null(pc.call_function("binary_length", [array.dictionary]), 0), np.int64)
        places = np.asarray(array.indices.drop_null())
        return int(lengths[places].sum())
    if pa.types.is_map(type_):
        array, type_ = array.cast(pa.list_(pa.struct([type_.key_field, type_.item_field]))), None
        return _written_out(array.flatten())
    if pa.types.is_list(type_) or pa.types.is_large_list(type_) or pa.types.is_fixed_size_list(type_):
        return _written_out(array.flatten())
    if pa.types.is_struct(type_):
        return sum(map(_written_out, array.flatten()))
    return array.nbytes
