"""A benchmark's question: what is asked, with which pictures, and what is right."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from core.errors import UserError


class BenchmarkError(UserError):
    """A benchmark or a prediction file that cannot be read: which row of which file, what is wrong, what to do."""


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
            raise BenchmarkError(f"picture {self.path}: {e.strerror}; is --image-root right?") from e
        if self.size is not None and len(data) != self.size:
            raise BenchmarkError(f"picture in {self.path} at byte {self.offset}: the file is cut off there")
        return data


@dataclass(frozen=True)
class HeldPicture(PictureFile):
    """A picture in memory; `path` is its name in messages."""

    data: bytes = field(default=b"", repr=False)

    def read(self) -> bytes:
        return self.data


@dataclass(frozen=True)
class RightAnswer:
    """The right answer. None: the benchmark does not state it, or there is no answer (`answerable` is false)."""

    answerable: bool = True
    score: float | None = None  # share of the task that is done, 0..1
    reference: int | None = None  # item of the demonstration nearest to the state, from 1
    demo_size: int | None = None  # items of the demonstration
    text: str | None = None  # the whole right answer, in the benchmark's own form
    success: bool | None = None  # of the whole run


@dataclass(frozen=True)
class Question:
    """One question of a benchmark.

    `text` has one IMAGE_MARK for each of `pictures`, in order: the demonstration's come first, then the state that is
    judged or the run's frames. What other prompt formats are built from stands beside it: `goal`, and of a
    demonstration its `steps` in words and the `shares` (0..1) of the task done at each item. `key` is equal for equal
    row, benchmark and inference number, and for nothing else. `row` is what prediction files carry as meta_data.
    """

    key: str
    benchmark: str
    part: str
    family: str  # text, visual, cross_view; procvqa_a, _b, _c; progress, success
    trajectory: str  # the episode, by the benchmark's own name; unique within part and dataset
    dataset: str
    camera: str  # of the last picture
    goal: str
    text: str
    pictures: tuple[PictureFile, ...]
    truth: RightAnswer
    inference: int = 0
    steps: tuple[str, ...] = ()
    shares: tuple[float, ...] = ()
    frame_index: int | None = None  # of the last picture, where it is a frame of a run of num_frames
    num_frames: int | None = None
    first: PictureFile | None = None  # the run's first picture, for models that are asked about a run
    row: Mapping[str, Any] = field(default_factory=dict, repr=False)

    def meta_data(self) -> dict[str, Any]:
        """The row as prediction files hold it: as the benchmark has it, with what tells it from others."""
        identity = {"benchmark": self.benchmark, "part": self.part, "key": self.key, "_inference_idx": self.inference}
        return {**self.row, **identity}


def question_key(benchmark: str, part: str, row: Mapping[str, Any], inference: int = 0) -> str:
    """First 16 hex of a hash over benchmark, part, row and inference number."""
    text = json.dumps([benchmark, part, row, inference], sort_keys=True, ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def replicated(questions: Sequence[Question], inferences: int) -> list[Question]:
    """Each question so many times, with numbers from 0 and keys of their own; all of one question together."""
    return [
        q if k == 0 else replace(q, inference=k, key=question_key(q.benchmark, q.part, q.row, k))
        for q in questions
        for k in range(inferences)
    ]
