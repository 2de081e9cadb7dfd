"""Pictures of shards: by a video's planes as by its RGB, whoever else looks at them."""

import io

import av
import cv2
import numpy as np
import pytest

from annotate.pictures import (
    GRID,
    area_averaged,
    encode_jpeg,
    fitted_picture,
    fitted_planes,
    half_picture,
    shard_jpeg,
)
from ingest.media.picture import ArrayPicture
from ingest.media.video import Frame
from pipeline.picture_cache import PictureStore


def scene(width: int, height: int) -> np.ndarray:
    """Smooth colours with a sharp square, RGB [h, w, 3]."""
    y, x = np.mgrid[0:height, 0:width]
    rgb = np.stack([255 * x / width, 255 * y / height, np.full(x.shape, 90)], axis=2).astype(
        np.uint8
    )
    rgb[height // 4 : height // 2, width // 4 : width // 2] = (250, 250, 20)
    return rgb


def drawn(width: int, height: int, pix_fmt: str) -> Frame:
    """A scene as a decoder hands it over."""
    return Frame(
        av.VideoFrame.from_ndarray(scene(width, height), format="rgb24").reformat(format=pix_fmt)
    )


def rgb_of(jpeg: bytes) -> np.ndarray:
    bgr = cv2.imdecode(np.frombuffer(jpeg, np.uint8), cv2.IMREAD_COLOR)
    return cv2.cvtColor(bgr, cv2.COLOR_BGR2RGB).astype(int)


@pytest.mark.parametrize("pix_fmt", ["yuv420p", "yuvj420p"])
@pytest.mark.parametrize(
    ("size", "max_px"),
    [
        ((640, 480), 256),
        ((256, 256), 256),  # as it is
        ((100, 80), 256),  # never larger
        ((1280, 720), 256),  # a whole factor
        ((644, 484), 210),  # no whole blocks
        ((480, 640), 256),
    ],
)
def test_planes_give_the_scene_as_well_as_rgb_does(size, max_px, pix_fmt):
    frame = drawn(*size, pix_fmt)
    by_rgb, width, height = encode_jpeg(frame.rgb(), max_px, 95)
    by_planes = rgb_of(shard_jpeg(frame, max_px, 95))
    assert by_planes.shape == (height, width, 3)
    wrong, wrong_by_rgb = (
        picture - fitted_picture(scene(*size), max_px).astype(int)
        for picture in (by_planes, rgb_of(by_rgb))
    )
    assert np.abs(wrong).mean() < np.abs(wrong_by_rgb).mean() + 0.1
    # No colour is shifted, which the way by RGB does
    assert np.abs(wrong.mean(axis=(0, 1))).max() < 0.5


@pytest.mark.parametrize(
    ("size", "is_packed"),
    [
        ((640, 480), True),
        ((644, 484), True),
        ((642, 481), False),  # odd
        ((90, 66), False),  # PyAV makes none so high
        ((90, 68), True),
    ],
)
def test_who_else_looked_at_a_picture_changes_no_byte(size, is_packed):
    frame = drawn(*size, "yuv420p")
    half = half_picture(frame.luma())
    assert np.array_equal(area_averaged(half, GRID), area_averaged(frame.luma(), GRID))
    store = PictureStore(io.BytesIO())
    assert store.pack((0, "front", 0, ""), frame, fitted_planes(frame, 256, half)) == is_packed
    picture = store.frame((0, "front", 0, "")) or frame
    assert shard_jpeg(picture, 256, 90) == shard_jpeg(frame, 256, 90)
    # Edited is a frame as it was decoded
    whole = store.frame((0, "front", 0, "occluded-1"))
    assert (whole is not None) == (size == (90, 68))
    assert whole is None or np.array_equal(whole.rgb(), frame.rgb())


@pytest.mark.parametrize(
    ("picture", "max_px"),
    [
        (ArrayPicture(scene(300, 200)), 128),  # no planes
        (drawn(300, 200, "yuv444p"), 128),  # others
        (drawn(321, 242, "yuv420p"), 128),  # odd before
        (drawn(320, 240, "yuv420p"), 101),  # odd afterwards
    ],
)
def test_what_has_no_such_planes_is_stored_by_its_colours(picture, max_px):
    assert shard_jpeg(picture, max_px, 90) == encode_jpeg(picture.rgb(), max_px, 90)[0]
