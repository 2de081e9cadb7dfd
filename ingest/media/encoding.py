"""Encodes pictures to videos, to be kept or to be looked at."""

import os
from collections.abc import Iterable
from fractions import Fraction
from pathlib import Path
from typing import cast

import av
import numpy as np
from av.container import OutputContainer

from core.errors import UserError

TICKS = 1000  # of the clock of a file that is written here, per frame
BITEXACT = 1 << 23  # AV_CODEC_FLAG_BITEXACT
KEY_FRAMES = "8"  # every so many frames: a frame is found by decoding eight at most
SHOWN = "shown"  # not to be kept: begins to play before all of it is there
# docs/performance.md has the bytes and the loss of these
ENCODERS = {
    "h264": ("libx264", {"crf": "19.5", "preset": "veryfast", "g": KEY_FRAMES, "bf": "0"}),
    "av1": ("libsvtav1", {"crf": "30", "preset": "10", "g": KEY_FRAMES}),
    # Every twelfth frame stands alone and none waits for a later one: a browser then finds any frame quickly
    SHOWN: ("libx264", {"crf": "20", "preset": "veryfast", "g": "12", "bf": "0"}),
}
FILE_OPTIONS = {SHOWN: {"movflags": "+faststart"}}


def encode(pictures: Iterable[np.ndarray], out: Path, fps: float, codec: str) -> int:
    """Encode uint8 [h, w, 3] pictures, and count them.

    One thread and no text of the encoder's own in the file: equal pictures, equal
    bytes.
    """
    os.environ.setdefault("SVT_LOG", "1")  # else the AV1 encoder writes about itself to stderr
    scheduling = os.sched_getscheduler(0), os.sched_getparam(0)
    options = {"fflags": "+bitexact"} | FILE_OPTIONS.get(codec, {})
    count = 0
    try:
        with av.open(str(out), "w", format="mp4", options=options) as container:
            stream = None
            for count, picture in enumerate(pictures, 1):
                stream = stream or _add_stream(container, codec, fps, *picture.shape[:2])
                frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
                clock = Fraction(1, round(fps * TICKS))
                frame.pts, frame.time_base = (count - 1) * TICKS, clock
                container.mux(stream.encode(frame))
            # The encoder holds pictures back until it is flushed
            if stream is not None:
                container.mux(stream.encode(None))
    finally:
        # SVT-AV1, where it may, makes the thread that calls it a real-time one, which starves all that runs beside it
        os.sched_setscheduler(0, *scheduling)
    return count


def _add_stream(
    container: OutputContainer, codec: str, fps: float, height: int, width: int
) -> av.VideoStream:
    """A stream to encode to, of the size of the first picture."""
    has_even_sides = height % 2 == 0 and width % 2 == 0
    if not has_even_sides and codec == "av1":
        raise UserError(
            f"the encoder of AV1 takes pictures of even sizes, not {width} x {height}: --codec h264"
        )
    name, options = ENCODERS[codec]
    rate = Fraction(fps).limit_denominator(1001)
    stream = cast(av.VideoStream, container.add_stream(name, rate=rate, options=options))
    stream.height = height
    stream.width = width
    # yuv420p stores colours for two by two pixels
    stream.pix_fmt = "yuv420p" if has_even_sides else "yuv444p"
    stream.codec_context.time_base = Fraction(1, round(fps * TICKS))
    if codec != SHOWN:
        stream.codec_context.thread_count = 1
    stream.codec_context.flags |= BITEXACT
    return stream
