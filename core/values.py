"""Values as other formats have them: JSON, CSV, Parquet; and the mark that stands for a picture in a text."""

import json
import math
from io import BytesIO
from typing import TYPE_CHECKING, Any

from core.errors import SqlError, first_line

if TYPE_CHECKING:
    import pyarrow as pa

IMAGE_MARK = "<image>"  # stands in a question where a picture goes, in samples as in benchmarks
PLAIN_IMAGE = "\ue000image\ue000"  # stands where the word <image> itself is meant


def encode(table: "pa.Table", style: str) -> bytes:
    """A table as json (also for `table`), csv or parquet. Raises SqlError: a value that the format does not have."""
    import pyarrow as pa
    import pyarrow.csv
    import pyarrow.parquet

    buffer = BytesIO()
    try:
        if style == "csv":
            pyarrow.csv.write_csv(_flat(table), buffer)
        elif style == "parquet":
            pyarrow.parquet.write_table(table, buffer)
        else:
            text = json.dumps(plain(python_rows(table)), indent=1, ensure_ascii=False)
            buffer.write(text.encode() + b"\n")
    except (pa.ArrowException, UnicodeError, RecursionError) as e:
        raise SqlError(f"the result cannot be written as {style}: {first_line(e)}; CAST(... AS VARCHAR) can") from e
    return buffer.getvalue()


def python_rows(table: "pa.Table") -> list[dict]:
    """A table's rows. Raises SqlError: a value that Python does not have, such as an infinite date."""
    names = table.schema.names
    columns = [_python_values(column, name) for column, name in zip(table.columns, names, strict=True)]
    return [dict(zip(names, row, strict=True)) for row in zip(*columns, strict=True)] if names else []


def _python_values(column: "pa.ChunkedArray", name: str) -> list:
    import pyarrow as pa

    try:
        return column.to_pylist()
    except (ArithmeticError, ValueError, RecursionError, pa.ArrowException) as e:
        asked = f"CAST({name} AS VARCHAR)"
        raise SqlError(f"the column {name} has a value that cannot be shown ({first_line(e)}): ask for {asked}") from e


def _flat(table: "pa.Table") -> "pa.Table":
    """Lists and structs as JSON text: CSV has no such things."""
    import pyarrow as pa

    for i, field in enumerate(table.schema):
        if pa.types.is_nested(field.type):
            values = _python_values(table.column(i), field.name)
            texts = [None if v is None else json.dumps(plain(v)) for v in values]
            table = table.set_column(i, field.name, pa.array(texts, pa.string()))
    return table


def plain(value: Any) -> Any:
    """A value as JSON has it: NaN and infinities become null, what JSON does not know becomes text."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {str(k): plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [plain(v) for v in value]
    if value is None or isinstance(value, bool | int | str):
        return value
    return value.isoformat() if hasattr(value, "isoformat") else str(value)
