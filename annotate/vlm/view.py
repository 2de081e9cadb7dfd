"""Inputs and results of annotation by a VLM."""

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from annotate.model_client.calls import Image, Reply, Request

Ask = Callable[[Request], Awaitable[Reply]]  # the client's, with the episode bound


@dataclass(frozen=True)
class EpisodeView:
    """An episode as the model gets to see it: by one camera, or by several side by side."""

    dataset: str
    episode_index: int
    task: str | None
    fps: float
    num_frames: int
    success: bool | None  # as the dataset states it
    frames: tuple[int, ...]  # of the coarse keyframes, ascending, first = 0
    # Any frames as stored JPEGs; called in a thread, never twice at once for one episode
    load: Callable[[Sequence[int]], Mapping[int, Image]]
    phash: np.ndarray  # uint64 [num_frames]
    motion_cuts: tuple[int, ...] = ()  # boundaries that the motion annotator found
    cameras: tuple[str, ...] = ()  # side by side in each picture, from left to right; empty: one


async def all_results[T](*calls: Awaitable[T]) -> list[T]:
    """All results; the first error only after all have ended, so that no reply under way is lost."""
    results: Iterable[T | BaseException] = await asyncio.gather(*calls, return_exceptions=True)
    if error := next((result for result in results if isinstance(result, BaseException)), None):
        raise error
    return [result for result in results if not isinstance(result, BaseException)]
