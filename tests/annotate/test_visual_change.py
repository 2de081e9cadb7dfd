"""Visual change and perceptual hashes, on drawn pictures and on frames of the shipped samples."""

from dataclasses import dataclass

import numpy as np
import pytest

from annotate.visual_change import GRID, FrameMeter, Measures, grid_of, hamming, published_phash
from core.paths import ROOT
from ingest.media.video import Frame, decode

SAMPLES = ROOT / "samples"
CAMERAS = {
    "sim_long/observation.images.front": 0.6,  # mean bits by which the fast hash may differ from the published one
    "sim_long/observation.images.wrist": 1.6,
    "sim_short/observation.images.front": 0.6,
}


def sample_frames(camera: str, count: int) -> list[Frame]:
    dataset, key = camera.split("/")
    video = sorted((SAMPLES / dataset / "videos" / key / "chunk-000").glob("*.mp4"))[0]
    return list(decode(video, 0, count))


@dataclass(frozen=True)
class Drawn:
    """A red square on grey, 640x480 px."""

    x: int
    is_damaged = is_key = False

    def rgb(self) -> np.ndarray:
        picture = np.full((480, 640, 3), 128, np.uint8)
        picture[200:260, self.x : self.x + 60] = (255, 0, 0)
        return picture

    def luma(self) -> np.ndarray:
        return np.round(self.rgb() @ np.array([0.299, 0.587, 0.114])).astype(np.uint8)

    def planes(self) -> None:
        return None


def measured(*pictures: np.ndarray) -> Measures:
    meter = FrameMeter()
    for luma in pictures:
        meter.add(luma)
    return meter.read()


def change(picture: np.ndarray, before: np.ndarray) -> float:
    return float(measured(before, picture).change[1])


@pytest.mark.parametrize("camera", CAMERAS)
def test_the_published_hash_is_that_of_imagehash(camera: str):
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
def test_the_fast_hash_is_near_the_published_one(camera: str):
    pytest.importorskip("imagehash")
    frames = sample_frames(camera, 160)[::4]
    fast = measured(*(f.luma() for f in frames)).phash
    published = np.array([published_phash(f) for f in frames], np.uint64)
    differ = np.bitwise_count(fast ^ published)
    assert differ.mean() <= CAMERAS[camera]
    assert differ.max() <= 8
    np.testing.assert_allclose(hamming(fast), hamming(published), atol=10)


def test_change_of_equal_and_of_opposite_pictures():
    grid = grid_of(Drawn(300).luma())
    assert change(grid, grid.copy()) == 0.0
    black, white = np.zeros((GRID, GRID), np.uint8), np.full((GRID, GRID), 255, np.uint8)
    assert change(white, black) == change(black, white) == 1.0
    assert measured(white).change.tolist() == [0.0]
    one = black.copy()
    one[5, 7] = 51
    assert change(one, black) == pytest.approx(0.2 / GRID**2, rel=1e-6)


def test_change_sees_motion_that_the_published_hash_does_not():
    pytest.importorskip("imagehash")
    still, moved = Drawn(300), {px: Drawn(300 + px) for px in (1, 2, 3, 5)}
    assert {(published_phash(m) ^ published_phash(still)).bit_count() for m in moved.values()} == {0}
    seen = [change(m.luma(), still.luma()) for m in moved.values()]
    assert seen[1] > 1e-4
    assert seen == sorted(seen)
    # a square of 60 px that moves by 2 px: two columns of 60 px change by 52 of 255
    assert seen[1] == pytest.approx(2 * 2 * 60 * 52 / 255 / (640 * 480), rel=0.1)


def test_the_grid_holds_area_averages():
    blocks = np.arange(GRID * GRID, dtype=np.uint32).reshape(GRID, GRID) % 200
    picture = np.kron(blocks, np.ones((2, 4), np.uint32)).astype(np.uint8)
    picture[0, :4] = [10, 20, 10, 24]  # of the first block of 2 x 4, averaging (64 + 0) / 8
    grid = grid_of(picture)
    assert grid.dtype == np.uint8
    assert grid[0, 0] == 8
    np.testing.assert_array_equal(grid.reshape(-1)[1:], blocks.reshape(-1)[1:])


def test_hamming_counts_all_64_bits():
    hashes = np.array([0, 2**64 - 1, 2**63, 2**63 + 1], np.uint64)
    assert hamming(hashes).tolist() == [0, 64, 63, 1]
    assert hamming(hashes[:1]).tolist() == [0]


def test_pictures_are_measured_alike_wherever_a_block_of_them_ends():
    pictures = list(np.random.default_rng(0).integers(0, 255, (3 * FrameMeter.BLOCK + 5, 72, 96), np.uint8))
    whole, pairs = measured(*pictures), [measured(*pictures[k : k + 2]) for k in range(len(pictures) - 1)]
    assert whole.change.tolist() == [0.0, *(float(p.change[1]) for p in pairs)]
    assert whole.phash.tolist() == [int(pairs[0].phash[0]), *(int(p.phash[1]) for p in pairs)]
    grids = np.stack([grid_of(p) for p in pictures]).astype(np.int64)
    np.testing.assert_allclose(whole.change[1:], np.abs(np.diff(grids, axis=0)).mean(axis=(1, 2)) / 255, rtol=1e-6)
    np.testing.assert_allclose(whole.luma_mean, grids.mean(axis=(1, 2)) / 255, atol=2e-3)
    assert whole.luma_span == int(np.ptp(grids, axis=0).max())


def test_reading_in_between_changes_nothing():
    pictures = list(np.random.default_rng(1).integers(0, 255, (9, 64, 64), np.uint8))
    meter = FrameMeter()
    for picture in pictures:
        meter.add(picture)
        meter.read()
    assert meter.read().sha256 == measured(*pictures).sha256
    assert meter.read().change.tolist() == measured(*pictures).change.tolist()


def test_no_pictures():
    nothing = measured()
    assert [len(nothing.change), len(nothing.phash), len(nothing.luma_mean), len(nothing.is_black)] == [0] * 4


def test_a_black_picture_has_no_lit_cell():
    lit = np.full((64, 64), 20, np.uint8)
    lit[3, 3] = 26
    assert measured(np.full((64, 64), 25, np.uint8), lit).is_black.tolist() == [True, False]
