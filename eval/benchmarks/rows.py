"""Rows of ProgressLM's benchmarks, as published files and prediction files hold them, in all their variants."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, Field, ValidationError

from core.errors import validation_message
from eval.benchmarks.question import BenchmarkError
from training.progresslm_rows import SourceRow, Text

PROGRESS_PARTS = (
    "text-normal",
    "text-unanswerable",
    "visual_same_view",
    "visual_cross_view",
    "visual-unanswerable",
)
HUMAN_PARTS = ("text", "visual")
HUMAN = "human"  # data_source of human-bench


class ProgressRow(SourceRow):
    """A row of a benchmark, as published files and prediction files hold it."""

    task_goal: Text = ""
    data_source: str | None = None
    inference: Annotated[int, Field(alias="_inference_idx"), AfterValidator(int)] = 0

    @property
    def answerable(self) -> bool:
        return self.progress_score is not None

    @property
    def dataset(self) -> str:
        """Where the recording is from; the prefix that some files give its name is left out."""
        return (self.data_source or self.id.split("/")[0]).removeprefix("robomind_")

    def part(self, benchmark: str) -> str:
        """The part of a benchmark that such a row belongs to."""
        if benchmark == "human-bench":
            return "text" if self.kind == "text" else "visual"
        if self.kind == "text":
            return "text-normal" if self.answerable else "text-unanswerable"
        if not self.answerable:
            return "visual-unanswerable"
        return "visual_cross_view" if self.kind == "cross_view" else "visual_same_view"

    def identity(self) -> tuple:
        """Equal for what is the same row. The label counts: published files hold the same picture with two labels."""
        return self.id, self.stage_to_estimate, self.demo, self.progress_score, self.closest_idx, self.inference


def read_row[T: BaseModel](kind: type[T], raw: dict[str, Any], where: str) -> T:
    """A row's fields, checked. Raises BenchmarkError."""
    try:
        return kind.model_validate(raw)
    except ValidationError as e:
        raise BenchmarkError(f"{where}: {validation_message(e)}") from e


def json_lines(path: Path, name: str, most_bytes: int, too_long: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """(which line, the object in it) of a file of JSON lines, without blank ones. Raises BenchmarkError naming it."""
    try:
        with path.open("rb") as file:
            # One byte more than allowed: a longer line is seen without being read as a whole
            for number, line in enumerate(iter(lambda: file.readline(most_bytes + 1), b""), 1):
                where = f"{name} line {number}"
                if len(line) > most_bytes:
                    raise BenchmarkError(f"{where} is longer than {most_bytes >> 20} MiB: {too_long}")
                if line.strip():
                    yield where, json_object(line, where)
    except OSError as e:
        raise BenchmarkError(f"cannot read {path}: {e.strerror}") from e


def json_object(data: bytes, where: str) -> dict[str, Any]:
    """Raises BenchmarkError for what is no JSON, or no object."""
    try:
        row = json.loads(data)
    except UnicodeDecodeError as e:
        raise BenchmarkError(f"{where} is not UTF-8 text (byte {e.start})") from e
    except (ValueError, RecursionError) as e:
        raise BenchmarkError(f"{where} is not JSON: {e}") from e
    if not isinstance(row, dict):
        raise BenchmarkError(f"{where} is no object but {type(row).__name__}")
    return row
