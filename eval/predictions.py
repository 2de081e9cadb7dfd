"""The prediction file: one JSON object a line, {"meta_data": {...}, "response": "raw text"}, whoever made it.

`meta_data` is the benchmark's row. Two more fields may stand beside it: `value`, a number 0..1 from a model that
answers by number and not in words, and `error`, why there is no answer (such a row counts as one that cannot be read).
Rows of ProgressLM's own runners have further fields (`ref`, `score`, `predicted_score`), which tell the answers' form.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from eval.benchmarks.question import BenchmarkError
from eval.benchmarks.rows import json_lines

MAX_LINE_BYTES = 16 << 20  # 40,000 tokens of reasoning have 0.2 MB


@dataclass(frozen=True)
class PredictionLine:
    """One line; `where` names it for people, `response` is empty where there is no answer, `fields` names all of it."""

    where: str
    meta_data: dict[str, Any]
    response: str = ""
    value: float | None = None
    error: str | None = None
    fields: frozenset[str] = frozenset()


def read_predictions(path: Path) -> Iterator[PredictionLine]:
    """The lines of a file, checked one by one, without blank ones. Raises BenchmarkError, which names the line."""
    for where, row in json_lines(path, path.name, MAX_LINE_BYTES, "is this a prediction file?"):
        if "meta_data" not in row:
            raise _wrong_line(where, 'has no "meta_data"')
        if not isinstance(row["meta_data"], dict):
            raise BenchmarkError(f'{where}: "meta_data" is {type(row["meta_data"]).__name__}, not an object')
        if "response" not in row:
            raise _wrong_line(where, 'has no "response"')
        response, value = row["response"], row.get("value")
        if not isinstance(response, str | None):  # null: there is no answer
            raise BenchmarkError(f'{where}: "response" is {type(response).__name__}, not text')
        is_number = isinstance(value, int | float) and not isinstance(value, bool)
        if value is not None and not (is_number and 0 <= value <= 1):
            raise BenchmarkError(f'{where}: "value" is {value!r}, not a number from 0 to 1')
        why = None if row.get("error") is None else str(row["error"])
        yield PredictionLine(where, row["meta_data"], response or "", value, why, frozenset(row))


def _wrong_line(where: str, what: str) -> BenchmarkError:
    return BenchmarkError(f'{where} {what}: a line is {{"meta_data": {{...}}, "response": "..."}}')
