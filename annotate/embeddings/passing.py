"""Embeds pictures as they come out of a decoder, the same way in whichever pass: that of `frames`, or one of its own.

A batch holds pictures of one camera of one episode, from its beginning on. What is left at its end goes into small
batches, the last of which is filled up with black. So what a picture is embedded with depends on its episode alone, not
on workers or on what else is built. Each batch is computed by one thread, several at a time: sums are added up in one
order, whatever the number of threads.
"""

import sys
from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Self

import numpy as np

from annotate.embeddings.config import EmbeddingsConfig
from annotate.embeddings.encoders import Encoder, encoder_input, load_encoder
from ingest.media.video import Picture

Seen = tuple[np.ndarray, np.ndarray]  # frames int64 [k], numbers float16 [k, 256 + 64 * cells]


def every_nth(hz: float, fps: float) -> int:
    """Which frames are looked at: 0 and every n-th after it, at most `hz` a second.

    Example: every_nth(5, 30) == 6; every_nth(5, 12) == 3; every_nth(5, 4) == 1
    """
    return max(1, int(np.ceil(fps / hz - 1e-9)))


@dataclass
class _Looked:
    """What was seen by one camera of one episode: frames, and the batches of their numbers."""

    frames: list[int] = field(default_factory=list)
    batches: "list[Future[np.ndarray]]" = field(default_factory=list)


@dataclass
class EmbeddingPass:
    """Takes pictures (an annotate.frames.Keeper), gives embeddings. Use it as a context manager: it has threads."""

    config: EmbeddingsConfig
    threads: int = 1
    _encoder: Encoder = field(init=False)
    _pool: ThreadPoolExecutor = field(init=False)
    _torch_threads: int = field(init=False)
    _looked: dict[tuple[int, str], _Looked] = field(default_factory=dict)
    _open: tuple[int, str] | None = None
    _batch: list[np.ndarray] = field(default_factory=list)
    _running: "deque[Future[np.ndarray]]" = field(default_factory=deque)

    def __post_init__(self) -> None:
        """Raises EncoderError."""
        self._encoder = load_encoder(self.config)
        self._torch_threads = _torch_threads()
        # Batches run side by side, so torch's own threads would only get in their way
        self._pool = ThreadPoolExecutor(self.threads, "embed", initializer=_set_torch_threads, initargs=(1,))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self._pool.shutdown(cancel_futures=True)
        _set_torch_threads(self._torch_threads)

    @property
    def encoder(self) -> Encoder:
        return self._encoder

    def every(self, camera: str, fps: float, num_frames: int | None, *, is_preferred: bool) -> int:
        """Every how many frames of a camera it is to be handed; 0: none."""
        cameras = self.config.cameras
        is_wanted = is_preferred if cameras == "preferred" else cameras == "all" or camera in cameras
        return every_nth(self.config.hz, fps) if is_wanted else 0

    def keep(self, episode_index: int, camera: str, frame_index: int, picture: Picture) -> None:
        """The next picture of a camera; frames rise."""
        key = episode_index, camera
        if key != self._open:
            self._finish_batch()
            self._open = key
        self._looked.setdefault(key, _Looked()).frames.append(frame_index)
        self._batch.append(encoder_input(picture.rgb(), self._encoder.size_px))
        if len(self._batch) == self._encoder.batch:
            self._finish_batch()

    def drop(self, episode_index: int, camera: str) -> None:
        """Those of a video that turned out to be damaged: another decoding may give others."""
        key = episode_index, camera
        if key == self._open:
            self._batch, self._open = [], None
        self._looked.pop(key, None)

    def has(self, episode_index: int, camera: str) -> bool:
        """Was it handed pictures of a camera?"""
        return (episode_index, camera) in self._looked

    def take(self, episode_index: int, camera: str) -> Seen:
        """The embeddings of the pictures that it was handed of a camera, which it lets go."""
        key = episode_index, camera
        if key == self._open:
            self._finish_batch()
            self._open = None
        looked = self._looked.pop(key)
        return np.array(looked.frames), np.concatenate([batch.result() for batch in looked.batches])

    def _finish_batch(self) -> None:
        """Hand what was collected to the threads: a whole batch, or at a camera's end small ones."""
        size = self._encoder.batch if len(self._batch) == self._encoder.batch else self._encoder.small_batch
        for begin in range(0, len(self._batch), size):
            self._submit(self._batch[begin : begin + size], size)
        self._batch = []

    def _submit(self, batch: list[np.ndarray], size: int) -> None:
        """Wait where more are under way than threads can begin soon."""
        assert self._open is not None, "pictures are of some camera"
        pictures = np.zeros((size, *batch[0].shape), np.uint8)
        pictures[: len(batch)] = batch
        future = self._pool.submit(_embed, self._encoder, pictures, len(batch))
        self._looked[self._open].batches.append(future)
        self._running.append(future)
        if len(self._running) > 2 * self.threads:
            self._running.popleft().result()


def _embed(encoder: Encoder, pictures: np.ndarray, count: int) -> np.ndarray:
    """The numbers of the first `count` pictures of a batch, float16."""
    return encoder.embed(pictures)[:count].astype(np.float16)


def _torch_threads() -> int:
    """How many threads torch takes; 1 where no encoder needed it."""
    torch = sys.modules.get("torch")
    return torch.get_num_threads() if torch else 1


def _set_torch_threads(count: int) -> None:
    """For this thread, and for those that torch starts later."""
    if torch := sys.modules.get("torch"):
        torch.set_num_threads(count)
