"""Visual change and perceptual hashes, on drawn pictures and on frames of the shipped samples."""

import cv2
import numpy as np
import pytest

from annotate.pictures import FrameMeter, Measures, hamming, published_phash
from core.paths import ROOT
from ingest.media.picture import ArrayPicture
from ingest.media.video import Frame, decode

SAMPLES = ROOT / "samples"
CAMERAS = {
    # Mean bits by which the fast hash may differ from the published one
    "sim_long/observation.images.front": 0.6,
    "sim_long/observation.images.wrist": 1.6,
    "sim_short/observation.images.front": 0.6,
}


def sample_frames(camera: str, count: int) -> list[Frame]:
    dataset, key = camera.split("/")
    video = sorted((SAMPLES / dataset / "videos" / key / "chunk-000").glob("*.mp4"))[0]
    return list(decode(video, 0, count))


def drawn(x: int) -> ArrayPicture:
    """A red square on grey, 640x480 px."""
    picture = np.full((480, 640, 3), 128, np.uint8)
    picture[200:260, x : x + 60] = (255, 0, 0)
    return ArrayPicture(picture)


def measured(*pictures: np.ndarray) -> Measures:
    meter = FrameMeter()
    for luma in pictures:
        meter.add(luma)
    return meter.read()


@pytest.mark.parametrize("camera", CAMERAS)
def test_the_published_hash_is_that_of_imagehash(camera):
    imagehash = pytest.importorskip("imagehash")
    from PIL import Image

    frames = sample_frames(camera, 60)[::4]
    ours = [published_phash(f) for f in frames]
    theirs = [imagehash.phash(Image.fromarray(f.rgb())) for f in frames]
    assert [f"{h:016x}" for h in ours] == [str(h) for h in theirs]
    assert len(set(ours)) > 1
    distances = [a - b for a, b in zip(theirs[1:], theirs[:-1], strict=True)]
    assert hamming(np.array(ours, np.uint64)).tolist() == [0, *distances]


@pytest.mark.parametrize("camera", CAMERAS)
def test_the_fast_hash_is_near_the_published_one(camera):
    pytest.importorskip("imagehash")
    frames = sample_frames(camera, 160)[::4]
    fast = measured(*(f.luma() for f in frames)).phash
    published = np.array([published_phash(f) for f in frames], np.uint64)
    differ = np.bitwise_count(fast ^ published)
    assert differ.mean() <= CAMERAS[camera]
    assert differ.max() <= 8
    np.testing.assert_allclose(hamming(fast), hamming(published), atol=10)


def test_change_sees_motion_that_the_published_hash_does_not():
    pytest.importorskip("imagehash")
    still = drawn(300)
    moved_frames = [drawn(300 + px) for px in (1, 2, 3, 5)]
    assert {(published_phash(m) ^ published_phash(still)).bit_count() for m in moved_frames} == {0}
    changes_seen = [float(measured(still.luma(), m.luma()).change[1]) for m in moved_frames]
    assert changes_seen[1] > 1e-4
    assert changes_seen == sorted(changes_seen)
    # a square of 60 px that moves by 2 px: two columns of 60 px change by 52 of 255
    assert changes_seen[1] == pytest.approx(2 * 2 * 60 * 52 / 255 / (640 * 480), rel=0.1)


def test_blur_takes_sharpness_and_light_does_not():
    pictures = [frame.luma() for frame in sample_frames("sim_long/observation.images.front", 40)]
    sharp = measured(*pictures).sharpness
    assert np.ptp(sharp) < 0.1
    blurred = measured(*(cv2.GaussianBlur(p, (0, 0), 0.016 * p.shape[1]) for p in pictures))
    assert (sharp - blurred.sharpness).min() > 0.2
    darker = measured(*((p * 0.7).astype(np.uint8) for p in pictures))
    assert np.abs(sharp - darker.sharpness).max() < 0.1
    # Of an empty picture it is a number, too
    assert np.isfinite(measured(np.zeros((480, 640), np.uint8)).sharpness).all()
