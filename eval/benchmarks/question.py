"""A benchmark's question: what is asked, with which pictures, and what is right."""

import hashlib
import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from core.errors import UserError
from training.pictures import decode_picture


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


# Families whose pictures are all of the run that is judged; the others show a demonstration first
FRAMES_OF_A_RUN = frozenset({"procvqa_c", "progress", "success"})
DEMONSTRATED = frozenset({"text", "visual", "cross_view"})
_NUMBER = re.compile(r"(\d+)(?:_edit)?\.\w+$")  # camera_top_0012.jpg, 12.jpg, camera_top_0012_edit.jpg


@dataclass(frozen=True)
class Question:
    """One question of a benchmark.

    `text` has one IMAGE_MARK for each of `pictures`, in order: the demonstration's come first, then the state that is
    judged or the run's frames. What is right, where the benchmark says it: `progress`, the share of the task that is
    done, 0..1, and `success` of the whole run. What other prompt formats are built from stands beside it: `goal`, and
    of a demonstration its `steps` in words and the `shares` (0..1) of the task done at each item. `row` is what
    prediction files carry as meta_data.
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
    frame_index: int | None = None  # of the last picture, where it is a frame of a run of num_frames
    num_frames: int | None = None
    first: PictureFile | None = None  # the run's first picture, for models that are asked about a run
    row: Mapping[str, Any] = field(default_factory=dict, repr=False)

    @cached_property
    def key(self) -> str:
        """Equal for equal benchmark, part, row and inference number, and for nothing else."""
        facts = [self.benchmark, self.part, self.row, self.inference]
        text = json.dumps(facts, sort_keys=True, ensure_ascii=False)
        return hashlib.sha256(text.encode()).hexdigest()[:16]

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
        return self.frame_index if self.family in DEMONSTRATED | FRAMES_OF_A_RUN else None

    def meta_data(self) -> dict[str, Any]:
        """The row as prediction files hold it: as the benchmark has it, with what tells it from others."""
        identity = {"benchmark": self.benchmark, "part": self.part, "key": self.key, "_inference_idx": self.inference}
        return {**self.row, **identity}


def frame_number(picture: PictureFile) -> int | None:
    """By its name; None where that does not tell."""
    match = _NUMBER.search(picture.path.name)
    return int(match[1]) if match else None


def runs_in_order(questions: Iterable[Question]) -> list[list[Question]]:
    """The questions about states of the same run, camera and inference, in order of time."""
    runs: dict[tuple[Any, ...], list[Question]] = {}
    for q in questions:
        if q.moment is not None:
            runs.setdefault((*q.run, q.inference), []).append(q)
    return [sorted(run, key=lambda q: (q.moment or 0, q.key)) for run in runs.values()]
