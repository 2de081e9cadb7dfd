"""Rows of Arrow tables as other formats have them: JSON, CSV, Parquet."""

import json
import re
from collections.abc import Iterable
from io import BytesIO
from typing import Any

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet

from core.errors import SqlError, first_line
from core.values import plain

# What a spreadsheet takes for a formula, and is no number
FORMULA = re.compile(r"(?!\s*[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?\s*\Z)\s*[=+\-@]")


def encode(table: pa.Table, style: str) -> bytes:
    """A table as json (also for `table`), csv or parquet. Raises SqlError: a value that the format does not have."""
    buffer = BytesIO()
    write_as(style, table.to_batches(), table.schema, buffer)
    return buffer.getvalue()


def write_as(style: str, batches: Iterable[pa.RecordBatch], schema: pa.Schema, file: Any) -> None:
    """Write rows as json (also for `table`), csv or parquet, a batch at a time. Raises SqlError, as `encode`."""
    try:
        {"csv": _write_csv, "parquet": _write_parquet}.get(style, _write_json)(
            batches, schema, file
        )
    except (pa.ArrowException, UnicodeError, RecursionError) as e:
        raise SqlError(
            f"the result cannot be written as {style}: {first_line(e)}; CAST(... AS VARCHAR) can"
        ) from e


def _write_csv(batches: Iterable[pa.RecordBatch], schema: pa.Schema, file: Any) -> None:
    with pyarrow.csv.CSVWriter(file, _flat(schema.empty_table()).schema) as writer:
        for batch in batches:
            writer.write_table(_harmless(_flat(pa.Table.from_batches([batch]))))


def _harmless(table: pa.Table) -> pa.Table:
    """Texts that a spreadsheet would take for a formula begin with an apostrophe; those that are numbers stay."""
    for i, field in enumerate(table.schema):
        if pa.types.is_string(field.type) or pa.types.is_large_string(field.type):
            texts = table.column(i).to_pylist()
            if any(text and FORMULA.match(text) for text in texts):
                safe = [f"'{text}" if text and FORMULA.match(text) else text for text in texts]
                table = table.set_column(i, field.name, pa.array(safe, field.type))
    return table


def _write_parquet(batches: Iterable[pa.RecordBatch], schema: pa.Schema, file: Any) -> None:
    with pyarrow.parquet.ParquetWriter(file, schema) as writer:
        for batch in batches:
            writer.write_batch(batch)


def _write_json(batches: Iterable[pa.RecordBatch], schema: pa.Schema, file: Any) -> None:
    """One list of all rows."""
    separator = "[\n"
    for batch in batches:
        if batch.num_rows:
            rows = plain(python_rows(pa.Table.from_batches([batch])))
            listed = (
                json.dumps(rows, indent=1, ensure_ascii=False)
                .removeprefix("[\n")
                .removesuffix("\n]")
            )
            file.write((separator + listed).encode())
            separator = ",\n"
    file.write(b"[]\n" if separator == "[\n" else b"\n]\n")


def python_rows(table: pa.Table) -> list[dict]:
    """A table's rows. Raises SqlError: a value that Python does not have, such as an infinite date."""
    names = table.schema.names
    columns = [
        _python_values(column, name) for column, name in zip(table.columns, names, strict=True)
    ]
    if names:
        return [dict(zip(names, row, strict=True)) for row in zip(*columns, strict=True)]
    return []


def _python_values(column: pa.ChunkedArray, name: str) -> list:
    try:
        return column.to_pylist()
    except (ArithmeticError, ValueError, RecursionError, pa.ArrowException) as e:
        expression = f"CAST({name} AS VARCHAR)"
        raise SqlError(
            f"the column {name} has a value that cannot be shown ({first_line(e)}): ask for {expression}"
        ) from e


def _flat(table: pa.Table) -> pa.Table:
    """Lists and structs as JSON text: CSV has no such things."""
    for i, field in enumerate(table.schema):
        if pa.types.is_nested(field.type):
            values = _python_values(table.column(i), field.name)
            texts = [None if v is None else json.dumps(plain(v)) for v in values]
            table = table.set_column(i, field.name, pa.array(texts, pa.string()))
    return table
