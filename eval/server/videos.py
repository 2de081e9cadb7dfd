"""Videos as they are uploaded: from the request into files, which a decoder can seek in."""

import re
import shutil
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, cast

import numpy as np
from fastapi import UploadFile
from starlette.concurrency import run_in_threadpool

from core.files import ScratchFolder
from core.wall import TOO_MUCH, Walled
from eval.reward.video import RunClip, Shown, open_clip
from eval.server.limits import WALL_S, Refused, ServerLimits, check_container, check_pixels
from ingest.episode import DecodeOptions
from ingest.media.video import Frame, decode, probe
from ingest.reasons import Limits

HEAD_BYTES = 16
UNSAFE = re.compile(r"[^\w\-]")  # of a camera's name that messages are to show


@asynccontextmanager
async def uploaded_files(
    videos: Sequence[UploadFile], cameras: Sequence[str]
) -> AsyncIterator[dict[str, Path]]:
    """The uploads as files by camera, as long as they are needed. Raises Refused (415) for what is no video."""
    with ScratchFolder() as folder:
        paths = {}
        for number, (camera, video) in enumerate(zip(cameras, videos, strict=True)):
            check_container(await video.read(HEAD_BYTES))
            await video.seek(0)
            # Not the client's name
            paths[camera] = folder / str(number) / f"{UNSAFE.sub('_', camera)}.video"
            paths[camera].parent.mkdir()
            await run_in_threadpool(_copy_upload, video, paths[camera])
        yield paths


def _copy_upload(video: UploadFile, path: Path) -> None:
    with path.open("wb") as f:
        shutil.copyfileobj(video.file, f)


@dataclass(frozen=True)
class WalledVideos:
    """A run's videos by camera, which a process of their own reads, with limits."""

    process: Walled
    videos: Mapping[str, Path]
    limits: Limits
    given_up: Callable[[], bool]  # does nobody wait for the next frame any more?

    def clip(self) -> RunClip:
        """Raises RewardError, and Refused (413)."""
        cpu_s = self.limits.cpu_s(sum(path.stat().st_size for path in self.videos.values()))
        return open_clip(self.videos, partial(self.ask, probe, cpu_s=cpu_s), self.read)

    def ask[T](self, work: Callable[..., T], *args: Any, cpu_s: float | None = None) -> T:
        """What the process says to `work(*args)`. Raises Refused (413)."""
        try:
            return self.process(work, *args, wall_s=WALL_S, cpu_s=cpu_s, given_up=self.given_up)
        except TOO_MUCH as e:
            raise Refused(
                413, "video_too_costly", "the video takes more CPU or memory to decode than it may"
            ) from e

    def read(self, camera: str) -> Iterator[Shown]:
        """The camera's frames in order, from the first one on each time. Raises VideoError, and Refused (413)."""
        path = self.videos[camera]
        self.ask(_begin, path, self.limits)
        while True:
            has_frame, time_s = self.ask(_advance, path)
            if not has_frame:
                return
            yield time_s, RemotePicture(self, path)


@dataclass(frozen=True)
class RemotePicture:
    """The newest frame of a video, which the process that reads it has."""

    clip: WalledVideos
    path: Path

    def rgb(self) -> np.ndarray:
        return self.clip.ask(_newest_rgb, self.path)


# In the process


FRAMES: dict[Path, Iterator[Frame]] = {}  # of each video those that were not read yet
NEWEST: dict[Path, Frame] = {}  # of each video the last frame that was read


def _begin(path: Path, limits: Limits) -> None:
    """Read a video from its first frame on: who looked at its last pictures scores it from the beginning."""
    # Nothing is passed over here, so there are frames alone
    FRAMES[path] = cast("Iterator[Frame]", decode(path, options=DecodeOptions(limits=limits)))


def _advance(path: Path) -> tuple[bool, float | None]:
    """Is there a next frame, and its time in seconds, where the file says it. Raises VideoError."""
    frame = next(FRAMES[path], None)
    if frame is None:
        return False, None
    NEWEST[path] = frame
    time_s = frame.picture.time
    return True, None if time_s is None else float(time_s)


def _newest_rgb(path: Path) -> np.ndarray:
    return NEWEST[path].rgb()


def check_videos(videos: WalledVideos, clip: RunClip, limits: ServerLimits) -> int:
    """Pixels of a moment, by the headers: nothing is decoded. Raises Refused (413)."""
    pixels = 0
    for camera, path in videos.videos.items():
        info = videos.ask(probe, path)
        check_pixels(info.width_px, info.height_px, limits.max_pixels, f"the video of {camera}")
        pixels += info.width_px * info.height_px
    if clip.num_frames is not None and clip.num_frames > limits.max_video_frames:
        message = f"the video has {clip.num_frames} frames: at most {limits.max_video_frames}"
        raise Refused(413, "too_many_frames", message)
    length_s = (clip.num_frames or 0) / clip.fps
    if length_s > limits.max_video_s:
        raise Refused(
            413,
            "video_too_long",
            f"the video lasts {length_s:.0f} s: at most {limits.max_video_s:.0f}",
        )
    return pixels
