"""Several mp4 files made one without re-encoding, and the proof that no frame has changed."""

from collections.abc import Iterator, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import numpy.typing as npt

from .runs import Camera, Run, video_of

IntArray = npt.NDArray[np.int64]

SAMPLE_EVERY = 5  # frames; colours are counted in one frame in five


def concatenate(sources: Sequence[Path], target: Path, fps: int) -> None:
    """Copy the packets of several mp4 files into one; frame k of the whole is shown at exactly k / fps.

    Each source starts with an IDR frame at time 0 and all share one H.264 header (checked), so the decoder needs no
    more than shifted times. Decoding times run a few frames ahead of 0 for B-frames, by the same lead in every
    source, so they stay strictly increasing across a joint; the muxer refuses them otherwise.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    options = {"movflags": "+faststart", "fflags": "+bitexact"}
    before = 0  # frames written so far
    with av.open(str(target), "w", options=options) as out:
        stream = None
        for source in sources:
            with av.open(str(source)) as container:
                video = container.streams.video[0]
                if stream is None:
                    stream = out.add_stream_from_template(video)
                    stream.time_base = video.time_base
                if (video.codec_context.extradata, video.time_base) != (
                    stream.codec_context.extradata,
                    stream.time_base,
                ):
                    raise ValueError(
                        f"{source}: H.264 header or time base differs from {sources[0]}"
                    )
                ticks = ticks_per_frame(video, fps)
                shown = set[int]()
                for packet in container.demux(video):
                    if packet.pts is None or packet.dts is None:
                        continue  # the empty packet that ends a demux
                    if not shown and not packet.is_keyframe:
                        raise ValueError(f"{source}: does not begin with a key frame")
                    shown.add(packet.pts)
                    packet.pts += before * ticks
                    packet.dts += before * ticks
                    packet.stream = stream
                    out.mux(packet)
                if shown != set(range(0, len(shown) * ticks, ticks)):
                    raise ValueError(f"{source}: frames are not evenly spaced from 0")
                before += len(shown)


def ticks_per_frame(video: av.VideoStream, fps: int) -> int:
    ticks = Fraction(1, fps) / (video.time_base or Fraction(1))
    if ticks.denominator != 1:
        raise ValueError(f"time base {video.time_base} cannot express 1/{fps} s")
    return int(ticks)


def decoded(path: Path) -> Iterator[av.VideoFrame]:
    with av.open(str(path)) as container:
        yield from container.decode(container.streams.video[0])


def check_and_count_colours(
    joined: Path, runs: Sequence[Run], camera: Camera, source: Path
) -> list[IntArray]:
    """Per run, how often each of 256 values occurs in red, green and blue: int64 [3, 256], of the sampled frames.

    Decodes `joined` once, beside its sources, and fails unless every frame is equal to its source frame and shown at
    its time. Counts rather than running means: sums of integers do not depend on order or on the CPU.
    """
    frames = decoded(joined)
    counts: list[IntArray] = []
    shown = 0
    for run in runs:
        count = np.zeros((3, 256), np.int64)
        before = shown
        # the source comes first: when it ends, zip takes no frame of the next run
        for original, copy in zip(decoded(video_of(source, camera, run)), frames, strict=False):
            if (
                copy.pts is None
                or copy.time_base is None
                or copy.pts * copy.time_base != Fraction(shown, run.fps)
            ):
                raise ValueError(f"{joined}: frame {shown} is shown at a wrong time")
            if not np.array_equal(original.to_ndarray(), copy.to_ndarray()):
                raise ValueError(f"{joined}: frame {shown} is not the one of run {run.index}")
            if (shown - before) % SAMPLE_EVERY == 0:
                image = copy.to_ndarray(format="rgb24").reshape(-1, 3)
                count += np.stack([np.bincount(image[:, c], minlength=256) for c in range(3)])
            shown += 1
        if shown - before != run.num_frames:
            raise ValueError(
                f"{joined}: {shown - before} frames for the {run.num_frames} rows of run {run.index}"
            )
        counts.append(count)
    if next(frames, None) is not None:
        raise ValueError(f"{joined}: more frames than rows")
    return counts


def video_info(path: Path) -> dict[str, Any]:
    """The `info` of a camera in `info.json`, with LeRobot 0.6.1's names, read from a real file."""
    with av.open(str(path)) as container:
        video = container.streams.video[0]
        info = {
            "video.height": video.height,
            "video.width": video.width,
            "video.codec": video.codec.canonical_name,
            "video.pix_fmt": video.pix_fmt,
            "video.fps": int(video.base_rate or 0),
            "video.channels": 3,
            "has_audio": bool(container.streams.audio),
            "is_depth_map": False,
        }
    return info
