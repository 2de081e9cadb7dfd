"""What one decoding of a chunk leaves for later stages, if one process runs them all: a chunk of a build.

- Pictures on their way into shards, where samples show so many that to keep all takes less time than to decode those
  again: in a file on disk without a name, which ends with its process. They are kept as they were decoded, made small,
  since samples show a third of them: these are encoded.
- Embeddings, where the build has them: an encoder looks at the pictures while they are decoded.

A stage that finds nothing here decodes what it needs.
"""

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from tempfile import TemporaryFile
from typing import IO, NamedTuple

import av
import numpy as np

from annotate.config import SamplesConfig, ShardsConfig
from annotate.embeddings import EncoderError
from annotate.embeddings.passing import EmbeddingPass
from annotate.frames import Keeper
from annotate.pictures import fitted_jpeg, fitted_planes
from core.paths import Workspace
from ingest.episode import Picture, Planes
from ingest.media.video import Frame
from pipeline.config import DatasetBuild

PictureKey = tuple[int, str, int, str]  # episode, camera, frame, edit
# Samples that show a part of an episode have its pictures decoded again, with the frames that these hang on. Where
# those are more than this share of all frames, each picture is kept while it is measured: that takes less time
MOST_DECODED_AGAIN = 0.5
OTHER_CAMERA_SHARE = (
    0.5  # of the most pictures that the preferred camera shows: so many does any other one
)
USUAL_S = 30.0  # of an episode whose length nobody knows before it is decoded
MOST_BYTES = 2 << 30  # of kept pictures of which only a share will be shown
PACKED = "packed"  # in the place of an edit: a frame that is not encoded
PACKED_BYTES = 96 << 10  # of one, at most: 256 x 256 pixels
MOST_PACKED = 1 << 30  # of a file from which on each picture is encoded


class PackedForm(NamedTuple):
    """How the packed frames of a camera are held: sizes (height, width), the rest as PyAV has it."""

    size: tuple[int, ...]
    decoded_size: tuple[int, int]
    pixel_format: str
    matrix: int
    levels: int

    @property
    def is_fit(self) -> bool:
        """Does PyAV make frames of that size, and is it small?"""
        height, width = self.size
        return height % 4 == width % 2 == 0 and 3 * height * width <= 2 * PACKED_BYTES


@dataclass
class PictureStore:
    """JPEGs by what they show: an episode's pictures may go into entries before and after its own; and packed frames.

    forms: of these, by episode and camera. end: of what the file holds.
    """

    file: IO[bytes]
    places: dict[PictureKey, tuple[int, int]] = field(default_factory=dict)
    forms: dict[tuple[int, str], PackedForm] = field(default_factory=dict)
    end: int = 0

    def put(self, key: PictureKey, *parts: bytes | np.ndarray) -> None:
        start = self.end
        self.file.seek(start)
        for part in parts:
            self.end += self.file.write(part)
        self.places[key] = start, self.end - start

    def get(self, key: PictureKey) -> bytes:
        offset, size = self.places[key]
        self.file.seek(offset)
        return self.file.read(size)

    def pack(self, key: PictureKey, picture: Picture, planes: Planes | None) -> bool:
        """Put what `fitted_planes` made of a frame; False: it is large, turned, or unlike those before."""
        is_full = self.end >= MOST_PACKED
        if is_full or planes is None or not isinstance(picture, Frame) or picture.quarter_turns:
            return False
        decoded = picture.picture
        form = PackedForm(
            planes.y.shape,
            (decoded.height, decoded.width),
            decoded.format.name,
            decoded.colorspace,
            decoded.color_range,
        )
        if not form.is_fit or form != self.forms.setdefault(key[:2], form):
            return False
        contents = map(np.ascontiguousarray, (planes.y, planes.u, planes.v))
        self.put((*key[:3], PACKED), *contents)
        return True

    def frame(self, key: PictureKey) -> Frame | None:
        """The frame that a picture is made of; None: it was not packed, or is to be edited and was made smaller."""
        packed_key = (*key[:3], PACKED)
        if packed_key not in self.places:
            return None
        form = self.forms[key[:2]]
        if key[3] and form.size != form.decoded_size:
            return None
        pixels = np.frombuffer(self.get(packed_key), np.uint8).reshape(-1, form.size[1])
        decoded = av.VideoFrame.from_numpy_buffer(pixels, form.pixel_format)
        decoded.colorspace = form.matrix
        decoded.color_range = form.levels
        return Frame(decoded)


def _open_file(workspace: Workspace) -> IO[bytes]:
    """On the disk that the shards go to: pictures of a chunk may be more than memory holds."""
    folder = workspace.root / "shards"
    folder.mkdir(parents=True, exist_ok=True)
    return TemporaryFile(dir=folder)


@dataclass
class FrameKeeper:
    """The pictures that one run of the frames stage decoded; an annotate.frames.Keeper.

    Where samples do not show every frame, it takes the end of a video's first group of pictures to
    know whether keeping them is worth it.
    """

    pictures: PictureStore
    shards: ShardsConfig
    samples: SamplesConfig
    _shown: float = (
        1.0  # of the video under way: the share of its frames that samples show, at most
    )
    _is_worth_it: bool | None = None  # to keep the pictures of that video; None: not known yet

    def every(self, camera: str, fps: float, num_frames: int | None, *, is_preferred: bool) -> int:
        most_pictures = float(self.samples.most_pictures)
        if not is_preferred:
            most_pictures *= OTHER_CAMERA_SHARE
        self._shown = min(1.0, most_pictures / (num_frames or max(1.0, USUAL_S * fps)))
        self._is_worth_it = True if is_preferred and self.samples.shows_every_frame else None
        return 1

    def keep(
        self,
        episode_index: int,
        camera: str,
        frame_index: int,
        picture: Picture,
        half_luma: np.ndarray | None = None,
    ) -> None:
        # The second key frame says how long a group is. A picture hangs on half of its group, on average
        if self._is_worth_it is None and frame_index > 0 and picture.is_key:
            self._is_worth_it = self._shown * (frame_index + 1) / 2 > MOST_DECODED_AGAIN
            if not self._is_worth_it:
                self.drop(episode_index, camera)
        is_full = not self.samples.shows_every_frame and self.pictures.end >= MOST_BYTES
        if self._is_worth_it is False or is_full:
            return
        key = episode_index, camera, frame_index, ""
        config = self.shards
        planes = fitted_planes(picture, config.picture_max_px, half_luma)
        if not self.pictures.pack(key, picture, planes):
            jpeg = fitted_jpeg(picture, planes, config.picture_max_px, config.jpeg_quality)
            self.pictures.put(key, jpeg)

    def drop(self, episode_index: int, camera: str) -> None:
        for key in [key for key in self.pictures.places if key[:2] == (episode_index, camera)]:
            del self.pictures.places[key]


@dataclass
class PictureCache:
    """What the stages of one chunk keep for one another while one process runs them.

    frames_hash: input hash of the run of the frames stage that it was kept of.
    """

    workspace: Workspace
    build: DatasetBuild
    threads: int = 1
    frames_hash: str = ""
    kept: FrameKeeper | None = None
    embedded: EmbeddingPass | None = None

    def keepers(self, frames_hash: str) -> list[Keeper]:
        """For a run of the frames stage. Lets go what an earlier run of it kept."""
        self.close()
        self.frames_hash = frames_hash
        stages = self.build.stages
        self.kept = FrameKeeper(
            PictureStore(_open_file(self.workspace)), stages.shards, stages.samples
        )
        if self.build.has_embeddings:
            # An encoder that cannot be had is the embeddings stage's failure, not that of the measurements
            with suppress(EncoderError):
                self.embedded = EmbeddingPass(self.build.embeddings, self.threads)
        return [keeper for keeper in (self.kept, self.embedded) if keeper]

    def close(self) -> None:
        if self.kept:
            # What is let go need not reach the disk, which may be full; whoever kept it has said so
            with suppress(OSError):
                self.kept.pictures.file.close()
        if self.embedded:
            self.embedded.close()
        self.kept = self.embedded = None


@contextmanager
def kept_pictures(workspace: Workspace, cache: PictureCache | None) -> Iterator[PictureStore]:
    """The pictures of the chunk's present frames where `cache`, which is of those, has them; else an empty file."""
    if cache and cache.kept:
        yield cache.kept.pictures
        return
    with _open_file(workspace) as file:
        yield PictureStore(file)


@contextmanager
def embedding_pass(
    build: DatasetBuild, cache: PictureCache | None, threads: int
) -> Iterator[EmbeddingPass]:
    """The pass that has looked at the chunk's present frames, where `cache`, which is of those, has
    it; else one anew.

    Raises EncoderError.
    """
    if cache and cache.embedded:
        yield cache.embedded
        return
    with EmbeddingPass(build.embeddings, threads) as embedder:
        yield embedder
