"""Encoded pictures of a chunk on their way into shards: in a file on disk that has no name, and so outlasts no process.

Where samples show every frame, the frames stage keeps the pictures that it decodes anyway and the shards stage takes
them from there, if one process runs both: a chunk of a build. Any other shards stage decodes what it needs.
"""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from tempfile import TemporaryFile
from typing import IO

import numpy as np

from annotate.frames import encode_jpeg
from core.paths import Workspace
from pipeline.config import DatasetBuild, ShardsConfig
from warehouse.lake import Lake

Key = tuple[int, str, int, str]  # episode, camera, frame, edit


@dataclass
class Spool:
    """JPEGs by what they show: an episode's pictures may go into entries before and after its own."""

    file: IO[bytes]
    places: dict[Key, tuple[int, int]] = field(default_factory=dict)
    end: int = 0

    def put(self, key: Key, jpeg: bytes) -> None:
        self.file.seek(self.end)
        self.file.write(jpeg)
        self.places[key] = (self.end, len(jpeg))
        self.end += len(jpeg)

    def get(self, key: Key) -> bytes:
        offset, size = self.places[key]
        self.file.seek(offset)
        return self.file.read(size)


@contextmanager
def spooling(workspace: Workspace) -> Iterator[Spool]:
    folder = workspace.root / "shards"
    folder.mkdir(parents=True, exist_ok=True)
    with TemporaryFile(dir=folder) as file:
        yield Spool(file)


@dataclass(frozen=True)
class Kept:
    """What one run of the frames stage, known by its input hash, has decoded; an annotate.frames.Keeper."""

    spool: Spool
    config: ShardsConfig
    input_hash: str

    def keep(self, episode_index: int, camera: str, frame_index: int, rgb: np.ndarray) -> None:
        jpeg = encode_jpeg(rgb, self.config.picture_max_px, self.config.jpeg_quality)[0]
        self.spool.put((episode_index, camera, frame_index, ""), jpeg)

    def drop(self, episode_index: int, camera: str) -> None:
        for key in [k for k in self.spool.places if k[:2] == (episode_index, camera)]:
            del self.spool.places[key]


@dataclass
class _Chunk:
    """The stages of one chunk, one after the other."""

    config: ShardsConfig
    files: ExitStack
    kept: Kept | None = None


_chunk: ContextVar[_Chunk | None] = ContextVar("chunk", default=None)


@contextmanager
def keeping(build: DatasetBuild) -> Iterator[None]:
    """One chunk's stages run inside; what is kept of it is deleted at the end."""
    if not build.stages.samples.shows_every_frame:
        yield
        return
    with ExitStack() as files:
        before = _chunk.set(_Chunk(build.stages.shards, files))
        try:
            yield
        finally:
            _chunk.reset(before)


def keeper(workspace: Workspace, input_hash: str) -> Kept | None:
    """For a run of the frames stage inside `keeping`; what was kept before is of another run, and deleted."""
    chunk = _chunk.get()
    if chunk is None:
        return None
    chunk.files.close()
    chunk.kept = Kept(chunk.files.enter_context(spooling(workspace)), chunk.config, input_hash)
    return chunk.kept


@contextmanager
def kept_pictures(lake: Lake, dataset: str, number: int | None) -> Iterator[Spool]:
    """Pictures of a chunk's present frames, if they were kept here; else an empty spool."""
    chunk = _chunk.get()
    if chunk and chunk.kept:
        present = lake.rows(
            "SELECT input_hash FROM stage_runs WHERE stage = 'frames' AND dataset = ? AND chunk = ?", [dataset, number]
        )
        if present == [(chunk.kept.input_hash,)]:
            yield chunk.kept.spool
            return
    with spooling(lake.workspace) as spool:
        yield spool
