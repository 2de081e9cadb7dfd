"""What the embeddings stage does with one camera of one episode."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from annotate.embeddings.config import EmbeddingsConfig
from annotate.embeddings.encoders import Encoder
from annotate.embeddings.passing import EmbeddingPass, every_nth
from annotate.embeddings.projection import WHOLE
from core.tables import TABLES
from ingest.episode import Episode
from ingest.media.video import DECODE_ALL, DecodeOptions, VideoError

CODE_VERSION = "embeddings-1"


def wanted_cameras(config: EmbeddingsConfig, usable: Sequence[str]) -> list[str]:
    """Which of an episode's usable cameras, by preference, are looked at."""
    if config.cameras == "preferred":
        return list(usable[:1])
    return [camera for camera in usable if config.cameras == "all" or camera in config.cameras]


def look(into: EmbeddingPass, episode: Episode, camera: str, fps: float, num_frames: int) -> int:
    """Hand over the wanted pictures of one camera, in a pass of its own; returns how many frames were decoded.

    Groups of pictures that hold none of them are not decoded, where the video's groups stand by themselves. On one
    thread, so that a damaged video gives the same pictures each time. Raises VideoError and RowsError.
    """
    wanted = frozenset(range(0, num_frames, every_nth(into.config.hz, fps)))
    try:
        return _look_at(into, episode, camera, wanted, DecodeOptions(wanted=wanted))
    except VideoError:
        into.drop(episode.record.episode_index, camera)
        return _look_at(into, episode, camera, wanted, DECODE_ALL)


def _look_at(into: EmbeddingPass, episode: Episode, camera: str, wanted: frozenset[int], options: DecodeOptions) -> int:
    last, count = max(wanted), 0
    for index, _, frame in episode.frames(camera, options):
        if index in wanted:
            into.keep(episode.record.episode_index, camera, index, frame)
            count += 1
        # Nothing after the last wanted frame is decoded
        if index == last:
            break
    if count < len(wanted):
        raise VideoError(f"{count} of {len(wanted)} pictures are there")
    return count


def camera_rows(where: Mapping[str, Any], encoder: Encoder, frames: np.ndarray, numbers: np.ndarray) -> pa.Table:
    """Rows of `embeddings`: of frames int64 [k] and numbers float16 [k, 256 + 64 * cells].

    where: dataset, episode_index, camera and chunk.
    """
    n = len(frames)
    columns = {
        "dataset": pa.repeat(where["dataset"], n),
        "episode_index": np.full(n, where["episode_index"], np.int64),
        "camera": pa.repeat(where["camera"], n),
        "frame_index": frames,
        "chunk": np.full(n, where["chunk"], np.int32),
        "encoder": pa.repeat(encoder.title, n),
        "device": pa.repeat(encoder.device, n),
        "embedding": _lists(numbers[:, :WHOLE]),
        "cells": _lists(numbers[:, WHOLE:]),
    }
    return pa.table(columns, schema=TABLES["embeddings"].schema)


def _lists(numbers: np.ndarray) -> pa.Array:
    n, width = numbers.shape
    values = pa.array(np.ascontiguousarray(numbers, np.float32).ravel())
    return pa.ListArray.from_arrays(np.arange(0, n * width + 1, width, dtype=np.int32), values)
