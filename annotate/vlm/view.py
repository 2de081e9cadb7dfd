"""What annotation by a VLM takes and gives."""

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from annotate.model_client.calls import Image, Reply, Request
from annotate.segments import Segment

Ask = Callable[[Request], Awaitable[Reply]]  # the client's, with the episode bound


@dataclass(frozen=True)
class EpisodeView:
    """An episode as the model gets to see it: one camera."""

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


@dataclass(frozen=True)
class VlmLabel:
    """Segments that tile the episode (annotate.segments.check_tiling), and what there is to say about all of them."""

    segments: list[Segment]
    num_planned: int
    task: str | None
    task_inferred: bool
    needs_review: bool
    notes: list[str]
    plan: tuple[str, ...]  # names of the planned steps, attempted or not
    as_far_as: tuple[int, int] | None = None  # episode and frame of a successful run that a failed one came as far as


@dataclass(frozen=True)
class Reasoning:
    frame_index: int
    text: str
    finished: bool  # all planned steps are complete by the end of this frame


async def together[T](*calls: Awaitable[T]) -> list[T]:
    """All results; the first error only after all have ended, so that no reply under way is lost."""
    results: Iterable[T | BaseException] = await asyncio.gather(*calls, return_exceptions=True)
    out: list[T] = []
    for r in results:
        if isinstance(r, BaseException):
            raise r
        out.append(r)
    return out
