"""Colours by the matrix and the range that a file states, as other players show them; phones' videos are upright."""

from fractions import Fraction
from pathlib import Path
from typing import cast

import av
import numpy as np
import pytest
from av.video.stream import VideoStream

from annotate.pictures import shard_jpeg
from ingest.media.video import Frame, decode
from tests.kits.lerobot_writer import write_video
from tests.kits.small_sources import decoded
from warehouse.exports.videos import encode

RED = (220, 20, 20)
GREEN = (20, 200, 20)
BT709 = 1
BT2020 = 9
UNSTATED = None
SIDE = 128


def halves() -> np.ndarray:
    """uint8 [SIDE, SIDE, 3]"""
    picture = np.empty((SIDE, SIDE, 3), np.uint8)
    picture[:, : SIDE // 2] = RED
    picture[:, SIDE // 2 :] = GREEN
    return picture


def written(
    path: Path, matrix: int | None, is_full: bool, encoder: str, pix_fmt: str = "yuv420p"
) -> Path:
    with av.open(str(path), "w") as out:
        stream = cast(VideoStream, out.add_stream(encoder, rate=10))
        stream.width = SIDE
        stream.height = SIDE
        is_named_full = is_full and (encoder, pix_fmt) == ("libx264", "yuv420p")
        stream.pix_fmt = "yuvj420p" if is_named_full else pix_fmt
        stream.options = {"crf": "12"}
        if matrix is not None:
            stream.codec_context.colorspace = matrix
        stream.codec_context.color_range = 2 if is_full else 1
        for k in range(3):
            frame = av.VideoFrame.from_ndarray(halves(), format="rgb24")
            ends = {"src_color_range": 1 if is_full else 2, "dst_color_range": 2 if is_full else 1}
            frame = frame.reformat(
                format=stream.pix_fmt, src_colorspace=5, dst_colorspace=matrix or 5, **ends
            )
            frame.pts, frame.time_base = k, Fraction(1, 10)
            out.mux(stream.encode(frame))
        out.mux(stream.encode(None))
    return path


def far_off(rgb: np.ndarray) -> int:
    middle = SIDE // 4
    middle_colours = rgb[middle, [middle, 3 * middle]].astype(int)
    return int(np.abs(middle_colours - [RED, GREEN]).max())


@pytest.mark.parametrize(
    ("encoder", "pix_fmt"),
    [
        ("libx264", "yuv420p"),
        ("libsvtav1", "yuv420p"),
        ("libvpx-vp9", "yuv420p"),
        ("libx264", "yuv420p10le"),
        ("libsvtav1", "yuv420p10le"),
    ],
)
@pytest.mark.parametrize("is_full", [False, True])
@pytest.mark.parametrize("matrix", [BT709, BT2020, UNSTATED])
def test_colours_are_as_the_file_states(tmp_path, matrix, is_full, encoder, pix_fmt):
    # PyAV 15.1.0 and torchcodec 0.11.1 stretch the full range of AV1, VP9 and 10 bits
    frame = next(decode(written(tmp_path / "a.mp4", matrix, is_full, encoder, pix_fmt)))
    assert far_off(frame.rgb()) <= 3
    assert far_off(decoded(shard_jpeg(frame, SIDE, 95))) <= 4
    # As an export writes them, and a browser is shown them
    encode(iter([frame.rgb()]), tmp_path / "b.mp4", 10, "h264")
    assert far_off(next(decode(tmp_path / "b.mp4")).rgb()) <= 12


@pytest.mark.parametrize("is_full", [False, True])
@pytest.mark.parametrize("encoder", ["libx264", "libx265", "libsvtav1"])
@pytest.mark.parametrize("form", ["yuv420p", "yuv420p10le"])
def test_luma_is_on_one_scale_whatever_its_bits(tmp_path, form, encoder, is_full):
    frame = next(decode(written(tmp_path / "a.mp4", UNSTATED, is_full, encoder, form)))
    levels = np.array([RED, GREEN]) @ [0.299, 0.587, 0.114]
    right = levels if is_full else 16 + levels * 219 / 255
    assert frame.luma().dtype == np.uint8
    assert np.abs(frame.luma()[SIDE // 4, [SIDE // 4, 3 * SIDE // 4]] - right).max() <= 2
    assert far_off(frame.rgb()) <= 3


def turned(path: Path, quarters: int) -> Path:
    """Set the display matrix of an MP4's only track: so many quarter turns clockwise, as phones do."""
    data = bytearray(path.read_bytes())
    header = data.find(b"tkhd")
    begin = header + 4 + 4 + (32 if data[header + 4] else 20) + 16
    unit = 1 << 16
    matrix = {
        1: (0, unit, 0, -unit, 0, 0),
        2: (-unit, 0, 0, 0, -unit, 0),
        3: (0, -unit, 0, unit, 0, 0),
    }[quarters]
    data[begin : begin + 36] = np.array([*matrix, 0, 0, 1 << 30], ">i4").tobytes()
    path.write_bytes(data)
    return path


@pytest.mark.parametrize("quarters", [1, 2, 3])
def test_a_video_that_is_stored_turned(tmp_path, quarters):
    upright = (
        np.random.default_rng(0)
        .integers(0, 2, (6, 4, 1), np.uint8)
        .repeat(16, 0)
        .repeat(16, 1)
        .repeat(3, 2)
        * 200
    )
    stored = np.ascontiguousarray(np.rot90(upright, quarters))  # anticlockwise
    path = turned(write_video(tmp_path / "a.mp4", [stored] * 3, options={"crf": "12"}), quarters)
    frame = next(decode(path))
    assert isinstance(frame, Frame)
    assert frame.quarter_turns == 4 - quarters
    for picture in (frame.rgb(), frame.luma()[..., None]):
        assert picture.shape[:2] == (96, 64)
        assert (
            np.abs(picture.astype(int) - upright[..., : picture.shape[2]])[4::16, 4::16].max() < 30
        )
    assert np.abs(decoded(shard_jpeg(frame, 96, 95)).astype(int) - upright)[4::16, 4::16].max() < 30
    # A copy of it would be turned twice, or not at all
    encode((f.rgb() for f in decode(path)), tmp_path / "b.mp4", 10, "h264")
    assert next(decode(tmp_path / "b.mp4")).rgb().shape == (96, 64, 3)
