"""A benchmark: its questions (what is asked, with which pictures, what is right), its lines, and where it lies."""

import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, cast

import cv2
import numpy as np
from pydantic import BaseModel, Field, ValidationError

from annotate.samples.wording import parse_answer, parse_reply
from core.errors import UserError, validation_message
from core.files import write_file
from core.values import grouped, short_hash
from eval.benchmarks.options import EvaluationOptions
from ingest.episode import VideoError
from ingest.media.video import Frame, decode
from ingest.registry import DatasetConfig
from ingest.sources.files import Source
from training.pictures import decode_picture

MAX_PX = 512
QUALITY = 95
INFERENCE_INDEX = "_inference_idx"
IDENTITY = (
    "benchmark",
    "part",
    "key",
    INFERENCE_INDEX,
)  # what tells a row of a prediction file from others
Numbered = Iterator[tuple[int, Frame]]


class BenchmarkError(UserError):
    """A benchmark or a prediction file that cannot be read: which row of which file, what is wrong,
    what to do."""


@dataclass(frozen=True)
class PictureFile:
    """A JPEG or PNG picture: a file, or `size` bytes of one from `offset` on (a member of a shard)."""

    path: Path
    offset: int = 0
    size: int | None = None

    def read(self) -> bytes:
        """The encoded picture. Raises BenchmarkError."""
        try:
            with self.path.open("rb") as file:
                file.seek(self.offset)
                data = file.read() if self.size is None else file.read(self.size)
        except OSError as e:
            raise BenchmarkError(
                f"picture {self.path}: {e.strerror}; is --image-root right?"
            ) from e
        if self.size is not None and len(data) != self.size:
            raise BenchmarkError(
                f"picture in {self.path} at byte {self.offset}: the file is cut off there"
            )
        return data

    def rgb(self, longest_px: int | None = None) -> np.ndarray:
        """uint8 [h, w, 3], no larger than `longest_px` on its longer side. Raises BenchmarkError."""
        try:
            return decode_picture(self.read(), longest_px or 1 << 30)
        except (ValueError, cv2.error) as e:  # cv2's: of an empty file
            raise BenchmarkError(f"picture {self.path} is neither a JPEG nor a PNG") from e


@dataclass(frozen=True)
class HeldPicture(PictureFile):
    """A picture in memory; `path` is its name in messages."""

    data: bytes = field(default=b"", repr=False)

    def read(self) -> bytes:
        return self.data


def picture_in(root: Path, name: str) -> PictureFile:
    """The picture of a published row. Raises BenchmarkError where its name leads out of the folder."""
    path = root / name
    if not path.resolve().is_relative_to(root.resolve()):
        raise BenchmarkError(f"the picture {name} lies outside the folder of pictures {root}")
    return PictureFile(path)


# Families whose pictures are all of the run that is judged; the others show a demonstration first
FRAMES_OF_A_RUN = frozenset({"procvqa_c", "progress", "success"})
DEMONSTRATED = frozenset({"text", "visual", "cross_view"})
# camera_top_0012.jpg, 12.jpg, camera_top_0012_edit.jpg
_NUMBER = re.compile(r"(\d+)(?:_edit)?\.\w+$")


@dataclass(frozen=True)
class Question:
    """One question of a benchmark.

    `text` has one IMAGE_MARK for each of `pictures`, in order: the demonstration's come first, then the state that is
    judged or the run's frames. What is right, where the benchmark says it: `progress`, the share of the task that is
    done, 0..1, and `success` of the whole run. A demonstration has `steps` in words and `shares` (0..1) of the task
    done at each item. `row` is what prediction files carry as meta_data.
    """

    benchmark: str
    part: str
    family: str  # text, visual, cross_view; procvqa_a, _b, _c; progress, success
    trajectory: str  # the episode, by the benchmark's own name; unique within part and dataset
    dataset: str
    camera: str  # of the last picture
    goal: str
    text: str
    pictures: tuple[PictureFile, ...]
    inference: int = 0
    progress: float | None = None
    success: bool | None = None
    steps: tuple[str, ...] = ()
    shares: tuple[float, ...] = ()
    # Of the last picture, where it is a frame of a run of num_frames
    frame_index: int | None = None
    num_frames: int | None = None
    # The run's first picture, for models that are asked about a run
    first: PictureFile | None = None
    row: Mapping[str, Any] = field(default_factory=dict, repr=False)
    # What scores are resampled by (an episode, or a task), and the groups that it is scored in
    unit: tuple[str, ...] = ()
    slices: tuple[str, ...] = ()
    reference: int | None = (
        None  # ProgressLM's: the item of the demonstration that the state is nearest to
    )
    answer: str | None = None  # the right one, of questions that are answered in words
    facts: Mapping[str, Any] = field(default_factory=dict, repr=False)  # that only scores need
    is_scored: bool = True  # False: asked about so that thresholds can be chosen

    @cached_property
    def key(self) -> str:
        """Equal for equal benchmark, part, row and inference number, and for nothing else."""
        facts = [self.benchmark, self.part, self.row, self.inference]
        text = json.dumps(facts, sort_keys=True, ensure_ascii=False)
        return short_hash(text)

    @property
    def run(self) -> tuple[str, str, str, str]:
        """Part, dataset, trajectory and camera."""
        return self.part, self.dataset, self.trajectory, self.camera

    @property
    def moment(self) -> int | None:
        """Frame number of the state that is judged; None where the question is about something else, or does not
        tell."""
        if self.family in DEMONSTRATED and self.frame_index is None:
            return frame_number(self.pictures[-1])
        if self.family in DEMONSTRATED | FRAMES_OF_A_RUN:
            return self.frame_index
        return None

    def stated(self, response: str, value: float | None = None) -> float | None:
        """The progress that an answer states, 0..1; None for n/a and for an answer that cannot be read."""
        if value is not None:
            return value
        if self.family in DEMONSTRATED:
            return score_of(response)
        return share_of(response)

    def meta_data(self) -> dict[str, Any]:
        """The row as prediction files hold it: as the benchmark has it, with what tells it from others."""
        facts = (self.benchmark, self.part, self.key, self.inference)
        return {**self.row, **dict(zip(IDENTITY, facts, strict=True))}


def frame_number(picture: PictureFile) -> int | None:
    """By its name; None where that does not tell."""
    match = _NUMBER.search(picture.path.name)
    if match:
        return int(match[1])
    return None


def runs_in_order(questions: Iterable[Question]) -> list[list[Question]]:
    """The questions about states of the same run, camera and inference, in order of time."""
    runs = grouped(((*q.run, q.inference), q) for q in questions if q.moment is not None)
    return [sorted(run, key=lambda q: (q.moment or 0, q.key)) for run in runs.values()]


# Lines of benchmarks and of prediction files: read, checked, and named where something is wrong in them

_TAG = re.compile(r"<progress>\s*(\d+(?:\.\d+)?|\.\d+)\s*(%?)\s*</progress>")
MAX_LINE_BYTES = 16 << 20  # of a prediction file; 40,000 tokens of reasoning have 0.2 MB


def read_row[R](read: Callable[[Any], R], raw: Any, line_name: str) -> R:
    """What `read` makes of a row. Raises BenchmarkError, which names the line, for one that is wrong."""
    try:
        return read(raw)
    except ValidationError as e:
        raise BenchmarkError(f"{line_name}: {validation_message(e)}") from e


def json_lines(
    path: Path, name: str, most_bytes: int, too_long: str
) -> Iterator[tuple[str, dict[str, Any]]]:
    """(which line, the object in it) of a file of JSON lines, without blank ones. Raises
    BenchmarkError naming it."""
    try:
        with path.open("rb") as file:
            # One byte more than allowed: a longer line is seen without being read as a whole
            for number, line in enumerate(iter(lambda: file.readline(most_bytes + 1), b""), 1):
                line_name = f"{name} line {number}"
                if len(line) > most_bytes:
                    raise BenchmarkError(
                        f"{line_name} is longer than {most_bytes >> 20} MiB: {too_long}"
                    )
                if line.strip():
                    yield line_name, json_object(line, line_name)
    except OSError as e:
        raise BenchmarkError(f"cannot read {path}: {e.strerror}") from e


def json_object(data: bytes, line_name: str) -> dict[str, Any]:
    """Raises BenchmarkError for what is no JSON, or no object."""
    try:
        row = json.loads(data)
    except UnicodeDecodeError as e:
        raise BenchmarkError(f"{line_name} is not UTF-8 text (byte {e.start})") from e
    except (ValueError, RecursionError) as e:
        raise BenchmarkError(f"{line_name} is not JSON: {e}") from e
    if not isinstance(row, dict):
        raise BenchmarkError(f"{line_name} is no object but {type(row).__name__}")
    return row


@dataclass(frozen=True)
class PredictionLine:
    """One line; `where` names it for people, `response` is empty where there is no answer, `fields` names all of it,
    `done` is how probable a head says that the end state is. `measured`: of an answer that is a label, by metric."""

    where: str
    meta_data: dict[str, Any]
    response: str = ""
    value: float | None = None
    error: str | None = None
    fields: frozenset[str] = frozenset()
    done: float | None = None
    measured: Mapping[str, float] | None = None


class _Line(BaseModel):
    meta_data: dict[str, Any]
    response: str | None  # null: there is no answer
    value: Annotated[float | None, Field(ge=0, le=1, strict=True)] = None
    error: Any = None


def read_predictions(path: Path) -> Iterator[PredictionLine]:
    """The lines of a prediction file, checked one by one: {"meta_data": {...}, "response": "raw text"} of any system.

    `meta_data` is the benchmark's row; beside it may stand `value`, a number 0..1 of a model without words, `done`, and
    `error`, why there is no answer. Other fields tell the form of ProgressLM's own runners. Raises BenchmarkError.
    """
    for name, row in json_lines(path, path.name, MAX_LINE_BYTES, "is this a prediction file?"):
        try:
            line = _Line.model_validate(row)
        except ValidationError as e:
            raise BenchmarkError(
                f'{name}: {validation_message(e)}; a line is {{"meta_data": {{...}}, "response": "..."}}'
            ) from e
        error = None if line.error is None else str(line.error)
        fields = frozenset(row)
        yield PredictionLine(name, line.meta_data, line.response or "", line.value, error, fields)


def share_of(text: str) -> float | None:
    """The share in the one progress tag of an answer; None where it has none, several, or a number that is unclear.

    45% is 0.45, as is 45 and 0.45; 1 without % could be either.
    """
    tags = _TAG.findall(text)
    if len(tags) != 1:
        return None
    number, percent_sign = tags[0]
    value = float(number)
    if percent_sign or value > 1:
        value /= 100
    elif value == 1:
        return None
    if value <= 1:
        return value
    return None


def score_of(text: str) -> float | None:
    """The score that an answer to ProgressLM's question states, with its reasons or alone; None for n/a and for what
    cannot be read."""
    if "<score>" in text:
        return parse_reply(text).score
    return parse_answer(text).score


# Where a benchmark lies, and the frames of its videos as JPEG files: a video is decoded once, whoever asks again


@dataclass(frozen=True)
class Data:
    """A benchmark that is to be read: where it lies, the parts of it to read, and where frames of videos are written.
    Parts that `asked` names have to be there."""

    asked: EvaluationOptions
    address: str
    revision: str | None
    parts: Sequence[str]
    frames: Path
    cache: Path | None

    def source(self, address: str | None = None) -> Source:
        config = DatasetConfig(
            name="benchmark", source=address or self.address, revision=self.revision
        )
        return Source(config, None, self.cache)


def has_file(source: Source, uri: str) -> bool:
    """Raises SourceError for a path that leaves the dataset's folder."""
    if source.remote:
        return uri in source.files
    return source.resolve(uri).is_file()


def frame_files(
    video: Path,
    folder: Path,
    chosen: Callable[[Numbered], Iterable[tuple[int, Frame]]],
    settings: str,
) -> tuple[PictureFile, ...]:
    """JPEGs of the `chosen` frames of a video, below `folder`, written where they are not there yet; `settings`: all
    that the choice depends on. Of a video that cannot be decoded the video itself, which is no picture: so the answer's
    error names it."""
    itself = (PictureFile(video),)
    if not video.is_file():
        return itself
    facts = video.stat()
    text = f"{video.resolve()} {facts.st_size} {facts.st_mtime_ns} {settings}"
    folder /= short_hash(text)
    # Written last: where it is, all of the pictures are
    index = folder / "frames.json"
    if not index.exists():
        numbers = []
        try:
            # Nothing is passed over here, so there are frames alone
            for number, frame in chosen(enumerate(cast("Iterator[Frame]", decode(video)))):
                write_file(folder / f"{number:06d}.jpg", encoded_jpeg(frame.rgb(), MAX_PX))
                numbers.append(number)
        except VideoError:
            return itself
        write_file(index, json.dumps(numbers).encode())
    return (
        tuple(
            PictureFile(folder / f"{number:06d}.jpg") for number in json.loads(index.read_bytes())
        )
        or itself
    )


def encoded_jpeg(rgb: np.ndarray, max_px: int) -> bytes:
    """A picture, uint8 [h, w, 3], no larger than max_px on its longer side."""
    bgr = cv2.cvtColor(rgb, cv2.COLOR_RGB2BGR)
    scale = min(1.0, max_px / max(bgr.shape[:2]))
    if scale < 1:
        bgr = cv2.resize(bgr, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
    return cv2.imencode(".jpg", bgr, [cv2.IMWRITE_JPEG_QUALITY, QUALITY])[1].tobytes()
