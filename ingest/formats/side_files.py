"""Small files of metadata beside the data: JSON, JSON lines, CSV. Sizes are bounded."""

import csv
import io
import json
from typing import Any

from ingest.episode import RowsError
from ingest.media.video import LFS_MARK
from ingest.sources.files import Source

MAX_BYTES = 1 << 28  # the largest known, AgiBot's task files, have some 20 MB


def read_text(source: Source, uri: str, errors: str = "strict") -> str:
    """A UTF-8 file, `errors` as for decode. Raises RowsError when it cannot be read or is too large for metadata."""
    if source.files[uri].size > MAX_BYTES:
        raise RowsError(f"{uri} has {source.files[uri].size} bytes, too many for metadata")
    path = source.resolve(uri)
    try:
        data = path.read_bytes()
    except OSError as e:
        raise RowsError(f"{uri} cannot be read: {e.strerror}") from e
    if data.startswith(LFS_MARK):
        raise RowsError(f"{uri} is a git-LFS pointer", "lfs_pointer")
    try:
        return data.decode("utf-8-sig", errors)
    except UnicodeDecodeError as e:
        raise RowsError(f"{uri} is not UTF-8: {e.reason} at byte {e.start}") from e


def parse_json(text: str | bytes, strict: bool = True) -> Any:
    """Raises ValueError, also for what is nested too deeply or holds half a character, which no table can keep.

    `strict`: no line breaks and such within a text.
    """
    try:
        value = json.loads(text, strict=strict)
    except RecursionError as e:
        raise ValueError("nested too deeply") from e
    if isinstance(text, bytes) or "\\u" in text:
        json.dumps(value, ensure_ascii=False).encode()  # UnicodeEncodeError for half of a surrogate pair
    return value


def read_json(source: Source, uri: str) -> Any:
    """Raises RowsError."""
    text = read_text(source, uri)
    try:
        return parse_json(text)
    except ValueError as e:
        raise RowsError(f"{uri} is not JSON: {e}") from e


def read_table(source: Source, uri: str) -> tuple[list[tuple[int, dict[str, Any]]], list[str]]:
    """Rows of a .csv, .jsonl or .json (a list of objects) with their numbers from 1, and what is wrong with others.

    Cells that are empty are left out. Raises RowsError when nothing of it can be read.
    """
    if uri.lower().endswith(".csv"):
        return _csv_rows(read_text(source, uri))
    problems: list[str] = []
    if uri.lower().endswith(".jsonl"):
        values = []
        for number, line in enumerate(read_text(source, uri).split("\n"), 1):
            try:
                values += [(number, parse_json(line))] if line.strip() else []
            except ValueError as e:
                problems.append(f"line {number} is not JSON: {e}")
    else:
        table = read_json(source, uri)
        if not isinstance(table, list):
            raise RowsError(f"{uri} is not a list of episodes")
        values = list(enumerate(table, 1))
    problems += [f"row {n} is not an object" for n, v in values if not isinstance(v, dict)]
    return [
        (n, {k: x for k, x in v.items() if x not in (None, "")}) for n, v in values if isinstance(v, dict)
    ], problems


def _csv_rows(text: str) -> tuple[list[tuple[int, dict[str, Any]]], list[str]]:
    rows: list[tuple[int, dict[str, Any]]] = []
    # strict: an open quote would swallow the rest of the file; a field is limited to 128 Ki characters by the module
    reader = csv.DictReader(io.StringIO(text, newline=""), strict=True)
    try:
        for number, row in enumerate(reader, 1):
            rows.append((number, {k.strip(): v.strip() for k, v in row.items() if k and v and v.strip()}))
    except csv.Error as e:
        return rows, [f"row {len(rows) + 1} is not CSV: {e}"]
    return rows, []
