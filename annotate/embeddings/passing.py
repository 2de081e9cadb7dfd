"""Embeds pictures as they come out of a decoder, the same way in whichever pass: that of `frames`, or one of its own.

A batch holds pictures of one camera of one episode, from its beginning on. What is left at its end
goes into small batches, the last of which is filled up with black. So what a picture is embedded
with depends on its episode alone, not on workers or on what else is built. Each batch is computed
by one thread, several at a time: sums are added up in one order, whatever the number of threads.
"""

import sys
from collections import deque
from collections.abc import Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, Self

import numpy as np
import pyarrow as pa

from annotate.config import EmbeddingsConfig
from annotate.embeddings.encoders import Encoder, encoder_input, load_encoder
from annotate.embeddings.projection import WHOLE
from annotate.frames import every_nth, lists_of, rows_of
from ingest.episode import EpisodeData, Picture, VideoError

Seen = tuple[np.ndarray, np.ndarray]  # frames int64 [k], numbers float16 [k, 256 + 64 * cells]
Batch = Future[np.ndarray]


class EmbeddingPass:
    """Takes pictures (an annotate.frames.Keeper), gives embeddings. Use it as a context manager: it has threads."""

    def __init__(self, config: EmbeddingsConfig, threads: int = 1) -> None:
        """Raises EncoderError."""
        self.config = config
        self.threads = threads
        self.encoder = load_encoder(config)
        # Where no encoder needed torch it has no threads of its own. Batches run side by side, so they would only get
        # in their way
        torch = sys.modules.get("torch")
        self._set_threads = torch.set_num_threads if torch else lambda _: None
        self._threads_before = torch.get_num_threads() if torch else 1
        self._pool = ThreadPoolExecutor(
            threads, "embed", initializer=self._set_threads, initargs=(1,)
        )
        # Frames, and their batches
        self._looked: dict[tuple[int, str], tuple[list[int], list[Batch]]] = {}
        self._open: tuple[int, str] | None = None
        self._batch: list[np.ndarray] = []
        self._running: deque[Batch] = deque()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self._pool.shutdown(cancel_futures=True)
        self._set_threads(self._threads_before)

    def every(self, camera: str, fps: float, num_frames: int | None, *, is_preferred: bool) -> int:
        """Every how many frames of a camera it is to be handed; 0: none."""
        cameras = self.config.cameras
        if cameras == "preferred":
            is_wanted = is_preferred
        else:
            is_wanted = cameras == "all" or camera in cameras
        if is_wanted:
            return every_nth(self.config.hz, fps)
        return 0

    def keep(
        self,
        episode_index: int,
        camera: str,
        frame_index: int,
        picture: Picture,
        half_luma: np.ndarray | None = None,
    ) -> None:
        """The next picture of a camera; frames rise."""
        key = episode_index, camera
        if key != self._open:
            self._finish_batch()
            self._open = key
        self._looked.setdefault(key, ([], []))[0].append(frame_index)
        self._batch.append(encoder_input(picture.rgb(), self.encoder.size_px))
        if len(self._batch) == self.encoder.batch:
            self._finish_batch()

    def drop(self, episode_index: int, camera: str) -> None:
        """Those of a video that turned out to be damaged: another decoding may give others."""
        if (episode_index, camera) == self._open:
            self._batch = []
            self._open = None
        self._looked.pop((episode_index, camera), None)

    def has(self, episode_index: int, camera: str) -> bool:
        """Was it handed pictures of a camera?"""
        return (episode_index, camera) in self._looked

    def take(self, episode_index: int, camera: str) -> Seen:
        """The embeddings of the pictures that it was handed of a camera, which it lets go."""
        if (episode_index, camera) == self._open:
            self._finish_batch()
            self._open = None
        frames, batches = self._looked.pop((episode_index, camera))
        return np.array(frames), np.concatenate([batch.result() for batch in batches])

    def _finish_batch(self) -> None:
        """Hand what was collected to the threads: a whole batch, or at a camera's end small ones."""
        if len(self._batch) == self.encoder.batch:
            size = self.encoder.batch
        else:
            size = self.encoder.small_batch
        for begin in range(0, len(self._batch), size):
            assert self._open is not None, "pictures are of some camera"
            part = self._batch[begin : begin + size]
            pictures = np.zeros((size, *part[0].shape), np.uint8)
            pictures[: len(part)] = part
            future = self._pool.submit(
                lambda x, n: self.encoder.embed(x)[:n].astype(np.float16), pictures, len(part)
            )
            self._looked[self._open][1].append(future)
            # Wait where more are under way than threads can begin soon
            self._running.append(future)
            if len(self._running) > 2 * self.threads:
                self._running.popleft().result()
        self._batch = []


# A pass of its own


def wanted_cameras(config: EmbeddingsConfig, usable: Sequence[str]) -> list[str]:
    """Which of an episode's usable cameras, by preference, are looked at."""
    if config.cameras == "preferred":
        return list(usable[:1])
    return [camera for camera in usable if config.cameras == "all" or camera in config.cameras]


def embed_camera(
    into: EmbeddingPass, episode: EpisodeData, camera: str, fps: float, num_frames: int
) -> int:
    """Hand over the wanted pictures of one camera, in a pass of its own; returns how many. Raises DataError."""
    requested_frames = frozenset(range(0, num_frames, every_nth(into.config.hz, fps)))
    count = 0
    for index, picture in episode.decoded(camera, requested_frames):
        if index in requested_frames:
            into.keep(episode.record.episode_index, camera, index, picture)
            count += 1
    if count < len(requested_frames):
        raise VideoError(f"{count} of {len(requested_frames)} pictures are there")
    return count


def camera_rows(
    key: Mapping[str, Any], encoder: Encoder, frames: np.ndarray, numbers: np.ndarray
) -> pa.Table:
    """Rows of `embeddings`: of frames int64 [k] and numbers float16 [k, 256 + 64 * cells].

    key: dataset, episode_index, camera and chunk.
    """
    n = len(frames)
    return rows_of(
        "embeddings",
        key,
        n,
        camera=pa.repeat(key["camera"], n),
        frame_index=frames,
        encoder=pa.repeat(encoder.title, n),
        device=pa.repeat(encoder.device, n),
        embedding=lists_of(numbers[:, :WHOLE]),
        cells=lists_of(numbers[:, WHOLE:]),
    )
