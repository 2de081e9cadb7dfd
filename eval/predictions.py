"""The prediction file: one JSON object a line, {"meta_data": {...}, "response": "raw text"}, whoever made it.

`meta_data` is the benchmark's row. Two more fields may stand beside it: `value`, a number 0..1 from a model that
answers by number and not in words, and `error`, why there is no answer (such a row counts as one that cannot be read).
Rows of ProgressLM's own runners have further fields (`ref`, `score`, `predicted_score`), which tell the answers' form.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from eval.benchmarks.question import BenchmarkError

MAX_LINE_BYTES = 16 << 20  # 40,000 tokens of reasoning have 0.2 MB


@dataclass(frozen=True)
class PredictionLine:
    """One line; `where` names it for people. `response` is empty where there is no answer."""

    where: str
    meta_data: dict[str, Any]
    response: str = ""
    value: float | None = None
    error: str | None = None
    fields: frozenset[str] = frozenset()  # names of all that the line has


def read_predictions(path: Path) -> Iterator[PredictionLine]:
    """The lines of a file, checked one by one, without blank ones. Raises BenchmarkError, which names the line."""
    try:
        with path.open("rb") as file:
            # One byte more than allowed: a longer line is seen without being read as a whole
            lines = iter(lambda: file.readline(MAX_LINE_BYTES + 1), b"")
            for number, line in enumerate(lines, 1):
                if line.strip() or len(line) > MAX_LINE_BYTES:
                    yield _prediction(line, f"{path.name} line {number}")
    except OSError as e:
        raise BenchmarkError(f"cannot read {path}: {e.strerror}") from e


def _prediction(line: bytes, where: str) -> PredictionLine:
    row = _json_object(line, where)
    _check_field(row, "meta_data", dict, "an object", where)
    if row.get("response", "") is not None:  # null: there is no answer
        _check_field(row, "response", str, "text", where)

    # What stands beside the answer, where anything does
    value, error = row.get("value"), row.get("error")
    if value is not None and not _is_share(value):
        raise BenchmarkError(f'{where}: "value" is {value!r}, not a number from 0 to 1')
    why = None if error is None else str(error)
    return PredictionLine(where, row["meta_data"], row["response"] or "", value, why, frozenset(row))


def _json_object(line: bytes, where: str) -> dict[str, Any]:
    """Raises BenchmarkError for a line that is too long, no JSON, or no object."""
    if len(line) > MAX_LINE_BYTES:
        raise BenchmarkError(f"{where} is longer than {MAX_LINE_BYTES >> 20} MiB: is this a prediction file?")
    try:
        row = json.loads(line)
    except UnicodeDecodeError as e:
        raise BenchmarkError(f"{where} is not UTF-8 text (byte {e.start})") from e
    except (ValueError, RecursionError) as e:
        raise BenchmarkError(f"{where} is not JSON: {e}") from e
    if not isinstance(row, dict):
        raise BenchmarkError(f"{where} is no object, but {type(row).__name__}")
    return row


def _check_field(row: dict[str, Any], name: str, kind: type, kind_in_words: str, where: str) -> None:
    """Raises BenchmarkError where a field is missing or of another type."""
    if name not in row:
        raise BenchmarkError(f'{where} has no "{name}": a line is {{"meta_data": {{...}}, "response": "..."}}')
    if not isinstance(row[name], kind):
        raise BenchmarkError(f'{where}: "{name}" is {type(row[name]).__name__}, not {kind_in_words}')


def _is_share(value: Any) -> bool:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return is_number and 0 <= value <= 1
