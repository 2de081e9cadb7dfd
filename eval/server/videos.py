"""Videos as they are uploaded: from the request into files, which a decoder can seek in."""

import re
import shutil
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

from fastapi import UploadFile
from starlette.concurrency import run_in_threadpool

from core.scratch import ScratchFolder
from eval.reward.stream import Moment, Stream
from eval.reward.video import RunVideos, clip_moments
from eval.server.limits import Refused, ServerLimits
from eval.server.pictures import check_container, check_pixels
from ingest.media.video import probe

HEAD_BYTES = 16
UNSAFE = re.compile(r"[^\w\-]")  # of a camera's name that messages are to show


@asynccontextmanager
async def received(videos: Sequence[UploadFile], cameras: Sequence[str]) -> AsyncIterator[dict[str, Path]]:
    """The uploads as files by camera, as long as they are needed. Raises Refused (415) for what is no video."""
    with ScratchFolder() as folder:
        paths = {}
        for number, (camera, video) in enumerate(zip(cameras, videos, strict=True)):
            check_container(await video.read(HEAD_BYTES))
            await video.seek(0)
            paths[camera] = folder / str(number) / f"{UNSAFE.sub('_', camera)}.video"  # not the client's name
            paths[camera].parent.mkdir()
            await run_in_threadpool(_write, video, paths[camera])
        yield paths


def _write(video: UploadFile, path: Path) -> None:
    with path.open("wb") as f:
        shutil.copyfileobj(video.file, f)


def check_videos(clip: RunVideos, limits: ServerLimits) -> int:
    """Pixels of a moment, by the headers: nothing is decoded. Raises Refused (413)."""
    pixels = 0
    for camera, path in clip.videos.items():
        info = probe(path)
        check_pixels(info.width_px, info.height_px, limits.max_pixels, f"the video of {camera}")
        pixels += info.width_px * info.height_px
    if clip.num_frames is not None and clip.num_frames > limits.max_video_frames:
        raise _too_long(clip.num_frames, limits)
    length_s = (clip.num_frames or 0) / clip.fps
    if length_s > limits.max_video_s:
        raise Refused(413, "video_too_long", f"the video lasts {length_s:.0f} s: at most {limits.max_video_s:.0f}")
    return pixels


def checked_moments(stream: Stream, clip: RunVideos, limits: ServerLimits) -> Iterator[Moment]:
    """What is to be scored, in order. Raises Refused (413) where the video is not what its header said."""
    for moment in clip_moments(stream, clip):
        if moment.frame_index >= limits.max_video_frames:
            raise _too_long(moment.frame_index + 1, limits)
        for camera, pictures in moment.views.items():
            height, width = pictures[-1].rgb.shape[:2]
            check_pixels(width, height, limits.max_pixels, f"frame {moment.frame_index} of {camera}")
        yield moment


def _too_long(frames: int, limits: ServerLimits) -> Refused:
    return Refused(413, "too_many_frames", f"the video has {frames} frames or more: at most {limits.max_video_frames}")
