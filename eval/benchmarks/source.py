"""Where a benchmark lies, and the frames of its videos as JPEG files: a video is decoded once, whoever asks again."""

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import cv2
import numpy as np

from core.files import write_file
from eval.benchmarks.options import EvaluationOptions
from eval.benchmarks.question import PictureFile
from ingest.media.frames import VideoError
from ingest.media.video import Frame, decode
from ingest.registry import DatasetConfig
from ingest.sources.files import Source

MAX_PX, QUALITY = 512, 95
Numbered = Iterator[tuple[int, Frame]]


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
        config = DatasetConfig(name="benchmark", source=address or self.address, revision=self.revision)
        return Source(config, None, self.cache)


def holds(source: Source, uri: str) -> bool:
    """Raises SourceError for a path that leaves the dataset's folder."""
    return uri in source.files if source.remote else source.resolve(uri).is_file()


def frame_files(
    video: Path, folder: Path, chosen: Callable[[Numbered], Iterable[tuple[int, Frame]]], settings: str
) -> tuple[PictureFile, ...]:
    """JPEGs of the `chosen` frames of a video, below `folder`, written where they are not there yet; `settings`: all
    that the choice depends on. Of a video that cannot be decoded the video itself, which is no picture: so the answer's
    error names it."""
    itself = (PictureFile(video),)
    if not video.is_file():
        return itself
    facts = video.stat()
    text = f"{video.resolve()} {facts.st_size} {facts.st_mtime_ns} {settings}"
    folder /= hashlib.sha256(text.encode()).hexdigest()[:16]
    # Written last: where it is, all of the pictures are
    index = folder / "frames.json"
    if not index.exists():
        numbers = []
        try:
            # Nothing is passed over here, so there are frames alone
            for number, frame in chosen(enumerate(cast("Iterator[Frame]", decode(video)))):
                write_file(folder / f"{number:06d}.jpg", jpeg(frame.rgb(), MAX_PX))
                numbers.append(number)
        except VideoError:
            return itself
        write_file(index, json.dumps(numbers).encode())
    return tuple(PictureFile(folder / f"{number:06d}.jpg") for number in json.loads(index.read_bytes())) or itself


def jpeg(rgb: np.ndarray, max_px: int) -> bytes:
    """A picture, uint8 [h, w, 3], no larger than max_px on its longer side."""
    bgr = cv2.cvtColor(rgb, cv2.COLOR_RGB2BGR)
    scale = min(1.0, max_px / max(bgr.shape[:2]))
    if scale < 1:
        bgr = cv2.resize(bgr, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
    return cv2.imencode(".jpg", bgr, [cv2.IMWRITE_JPEG_QUALITY, QUALITY])[1].tobytes()
