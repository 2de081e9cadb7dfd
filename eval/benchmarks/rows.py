"""Rows of ProgressLM's benchmarks, as published files and prediction files hold them, in all their variants."""

import json
import math
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator

from annotate.samples.replies import written_ref, written_score
from core.errors import validation_message
from eval.benchmarks.question import BenchmarkError

PROGRESS_PARTS = (
    "text-normal",
    "text-unanswerable",
    "visual_same_view",
    "visual_cross_view",
    "visual-unanswerable",
)
HUMAN_PARTS = ("text", "visual")
HUMAN = "human"  # data_source of human-bench
_NONE = frozenset({"", "n/a", "na", "none", "null", "-"})
_CAMERA = re.compile(r"(?P<camera>.+?)_\d+(_edit)?\.[A-Za-z]+$")


def _score(value: Any) -> float | None:
    """0.33, "0.33", "33%" or 33 as 0.33; n/a as None. Raises ValueError."""
    if value is None or (isinstance(value, str) and value.strip().lower() in _NONE):
        return None
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise ValueError('is neither a share, a percentage such as "33%", nor "n/a"')
    share = written_score(value)
    if share is None or not math.isfinite(share) or not 0 <= share <= 1:
        raise ValueError(f'is {value!r}: neither a share from 0 to 1, a percentage such as "33%", nor "n/a"')
    return share


def _reference(value: Any) -> int | None:
    """3 or "3" as 3; n/a as None. Raises ValueError."""
    if value is None or (isinstance(value, str) and value.strip().lower() in _NONE):
        return None
    number = written_ref(value) if isinstance(value, str | int) and not isinstance(value, bool) else None
    if number is None:
        raise ValueError(f'is {value!r}: neither a whole number nor "n/a"')
    return number


def _name(value: Any) -> Any:
    """A file name, or a list that holds just one."""
    if isinstance(value, list):
        if len(value) != 1:
            raise ValueError(f"is a list of {len(value)} names, not of one")
        return value[0]
    return value


def _steps(value: Any) -> Any:
    if isinstance(value, str):
        return None if value.strip().lower() in _NONE else int(value)
    return value


def camera_of(picture: str) -> str:
    """The camera in a picture's name, camera_top_0012.jpg; empty where the name does not say."""
    match = _CAMERA.match(picture.replace("\\", "/").rsplit("/", 1)[-1])
    return match["camera"] if match else ""


Text = Annotated[str, Field(strict=True)]
Items = Annotated[tuple[Text, ...], Field(min_length=1)]


class ProgressRow(BaseModel):
    """One row: a demonstration in words or pictures, and one picture to place in it."""

    model_config = ConfigDict(frozen=True, extra="allow")

    id: Annotated[Text, Field(min_length=1)]
    task_goal: Text = ""
    text_demo: Items | None = None
    visual_demo: Items | None = None
    total_steps: Annotated[int | None, BeforeValidator(_steps)] = None
    stage_to_estimate: Annotated[str, BeforeValidator(_name), Field(min_length=1)]
    closest_idx: Annotated[int | None, BeforeValidator(_reference)]
    progress_score: Annotated[float | None, BeforeValidator(_score)]
    data_source: str | None = None
    camera_combination: str | None = None
    inference: Annotated[int, Field(alias="_inference_idx"), AfterValidator(int)] = 0

    @model_validator(mode="after")
    def _one_demonstration(self) -> "ProgressRow":
        if (self.text_demo is None) == (self.visual_demo is None):
            raise ValueError("has neither text_demo nor visual_demo" if self.text_demo is None else "has both demos")
        if self.closest_idx is not None and not 1 <= self.closest_idx <= self.demo_size:
            raise ValueError(f"closest_idx is {self.closest_idx}, the demonstration has {self.demo_size} items")
        return self

    @property
    def demo(self) -> tuple[str, ...]:
        return self.text_demo or self.visual_demo or ()

    @property
    def demo_size(self) -> int:
        return len(self.demo)

    @property
    def answerable(self) -> bool:
        return self.progress_score is not None

    @property
    def camera(self) -> str:
        """Of the picture that is judged, by its name; empty where the name does not say."""
        return camera_of(self.stage_to_estimate)

    @property
    def kind(self) -> Literal["text", "visual", "cross_view"]:
        if self.text_demo is not None:
            return "text"
        cameras = {camera_of(name) for name in self.visual_demo or ()} - {""}
        elsewhere = self.camera != "" and bool(cameras) and self.camera not in cameras
        return "cross_view" if self.camera_combination or elsewhere else "visual"

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
