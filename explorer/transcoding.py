"""Videos that a browser cannot play, as H.264: a camera's pictures of one episode, made when asked for, and kept."""

import hashlib
import os
from collections.abc import Callable
from contextlib import suppress
from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np

from core.files import whole_file
from core.paths import Workspace
from core.wall import TOO_MUCH, Walled
from explorer.access import PageError
from explorer.episode import LakeEpisode, cameras
from explorer.media import MEMORY_BYTES, video_file
from ingest.limits import Limits
from ingest.media.frames import DecodeOptions, VideoError
from ingest.media.video import decode

CODE_VERSION = "h264-1"  # files of another are made anew
MAX_HEIGHT_PX = 720
MAX_FRAMES = 36_000  # of an episode: 20 minutes at 30 frames a second
FRAME_S = 0.5  # CPU that one may take, beside what a build's may
KEPT_BYTES = 2_000_000_000  # of all files; those that were not looked at for longest go first
# Every twelfth frame stands alone and none waits for a later one: a browser then finds any frame quickly
ENCODER = {"preset": "veryfast", "crf": "20", "g": "12", "bf": "0"}


def playable(space: Workspace, episode: LakeEpisode, camera: int, limits: Limits, given_up: Callable[[], bool]) -> Path:
    """An MP4 file in H.264 whose frames are those of the episode. Raises PageError, also once nobody waits for it.

    `limits`: what the dataset's files may claim.
    """
    path = video_file(space, episode, camera)
    video = cameras(episode, {})[camera]["video"]
    where = f"{episode.dataset} {episode.episode_index}"
    if not 0 < episode.num_frames <= MAX_FRAMES:
        raise PageError(
            f"{where}: videos of up to {MAX_FRAMES:,} frames are converted, this one has {episode.num_frames:,}"
        )

    # A source that is fetched anew, or an episode that begins elsewhere in it, is another video
    status = path.stat()
    about = (CODE_VERSION, path, status.st_size, status.st_mtime_ns, video, episode.num_frames)
    kept = space.root / "explorer" / "videos" / f"{hashlib.sha256(repr(about).encode()).hexdigest()[:32]}.mp4"
    if kept.is_file():
        with suppress(OSError):
            os.utime(kept)
        return kept
    try:
        most_s = limits.cpu_s(status.st_size) + FRAME_S * episode.num_frames
        with whole_file(kept, synced=False) as half, Walled(MEMORY_BYTES, __name__) as decoder:
            asked = path, video["start_frame"], episode.num_frames, video["fps"], limits, half
            decoder(_encode, *asked, cpu_s=most_s, wall_s=most_s, given_up=given_up)
    except (VideoError, *TOO_MUCH) as e:
        raise PageError(f"{where}: {e}", 503 if given_up() else 404) from e
    except OSError as e:
        raise PageError(f"{where}: the converted video cannot be kept ({e.strerror or e})", 503) from e
    forget(kept)
    return kept


def _encode(path: Path, start_frame: int, num_frames: int, fps: float, limits: Limits, target: Path) -> None:
    """Write frames of a video to an MP4 file. Raises VideoError, also where there are none."""
    rate = Fraction(fps).limit_denominator(1001)
    with av.open(str(target), "w", format="mp4", options={"movflags": "faststart"}) as out:
        stream = out.add_stream("libx264", rate=rate, options=ENCODER)
        stream.pix_fmt = "yuv420p"
        count, pictures = 0, decode(path, start_frame, num_frames, fps, DecodeOptions(limits=limits))
        for count, picture in enumerate(pictures, 1):
            scaled = _even(picture.rgb())
            if count == 1:
                stream.height, stream.width = scaled.shape[:2]
            frame = av.VideoFrame.from_ndarray(scaled, format="rgb24")
            frame.pts, frame.time_base = count - 1, 1 / rate
            out.mux(stream.encode(frame))
        if not count:
            raise VideoError("the video ends before the episode begins")
        out.mux(stream.encode(None))


def _even(picture: np.ndarray) -> np.ndarray:
    """A picture no higher than the limit, with an even height and width: the encoder takes no other."""
    height, width = picture.shape[:2]
    scale = min(1.0, MAX_HEIGHT_PX / height)
    size = (max(2, round(width * scale / 2) * 2), max(2, round(height * scale / 2) * 2))
    return picture if size == (width, height) else cv2.resize(picture, size, interpolation=cv2.INTER_AREA)


def forget(newest: Path) -> None:
    """Delete what was not looked at for longest, until the rest is within the limit; never the newest."""
    with suppress(OSError):  # another explorer forgets, too
        files = sorted(newest.parent.glob("*.mp4"), key=lambda p: p.stat().st_mtime, reverse=True)
        total = 0
        for path in files:
            total += path.stat().st_size
            if total > KEPT_BYTES and path != newest:
                path.unlink(missing_ok=True)
