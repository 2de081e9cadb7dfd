"""Encoded pictures of a chunk on their way into shards: in a file on disk without a name, which ends with its process.

Where samples show every frame, the frames stage keeps the pictures that it decodes anyway, and the shards stage takes
them from there if one process runs both: a chunk of a build. Any other shards stage decodes what it needs.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from tempfile import TemporaryFile
from typing import IO

import numpy as np

from annotate.frames import encode_jpeg
from core.paths import Workspace
from pipeline.config import DatasetBuild
from warehouse.lake import Lake
from warehouse.shards.config import ShardsConfig

PictureKey = tuple[int, str, int, str]  # episode, camera, frame, edit


@dataclass
class PictureStore:
    """JPEGs by what they show: an episode's pictures may go into entries before and after its own."""

    file: IO[bytes]
    places: dict[PictureKey, tuple[int, int]] = field(default_factory=dict)
    end: int = 0

    def put(self, key: PictureKey, jpeg: bytes) -> None:
        self.file.seek(self.end)
        self.file.write(jpeg)
        self.places[key] = (self.end, len(jpeg))
        self.end += len(jpeg)

    def get(self, key: PictureKey) -> bytes:
        offset, size = self.places[key]
        self.file.seek(offset)
        return self.file.read(size)


def _open_file(workspace: Workspace) -> IO[bytes]:
    """On the disk that the shards go to: pictures of a chunk may be more than memory holds."""
    folder = workspace.root / "shards"
    folder.mkdir(parents=True, exist_ok=True)
    return TemporaryFile(dir=folder)


@dataclass(frozen=True)
class FrameKeeper:
    """The pictures that one run of the frames stage, known by its input hash, decoded; an annotate.frames.Keeper."""

    pictures: PictureStore
    config: ShardsConfig
    input_hash: str

    def keep(self, episode_index: int, camera: str, frame_index: int, rgb: np.ndarray) -> None:
        jpeg = encode_jpeg(rgb, self.config.picture_max_px, self.config.jpeg_quality)[0]
        self.pictures.put((episode_index, camera, frame_index, ""), jpeg)

    def drop(self, episode_index: int, camera: str) -> None:
        for key in [key for key in self.pictures.places if key[:2] == (episode_index, camera)]:
            del self.pictures.places[key]


@dataclass
class PictureCache:
    """What the stages of one chunk keep for one another while one process runs them."""

    workspace: Workspace
    config: ShardsConfig
    kept: FrameKeeper | None = None

    def keeper(self, input_hash: str) -> FrameKeeper:
        """For a run of the frames stage. Deletes what an earlier run of it kept."""
        self.close()
        self.kept = FrameKeeper(PictureStore(_open_file(self.workspace)), self.config, input_hash)
        return self.kept

    def close(self) -> None:
        if self.kept:
            self.kept.pictures.file.close()
            self.kept = None


@contextmanager
def picture_cache(workspace: Workspace, build: DatasetBuild) -> Iterator[PictureCache | None]:
    """The cache of one chunk, deleted at the end; None for a build whose samples show few of the frames."""
    if not build.stages.samples.shows_every_frame:
        yield None
        return
    cache = PictureCache(workspace, build.stages.shards)
    try:
        yield cache
    finally:
        cache.close()


@contextmanager
def kept_pictures(lake: Lake, dataset: str, chunk: int, cache: PictureCache | None) -> Iterator[PictureStore]:
    """The pictures of the chunk's present frames where they were kept; else an empty file."""
    if cache and cache.kept:
        present = lake.rows(
            "SELECT input_hash FROM stage_runs WHERE stage = 'frames' AND dataset = ? AND chunk = ?", [dataset, chunk]
        )
        if present == [(cache.kept.input_hash,)]:
            yield cache.kept.pictures
            return
    with _open_file(lake.workspace) as file:
        yield PictureStore(file)
