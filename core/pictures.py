"""Pictures that this program has stored itself, decoded. What others made is decoded by ingest, within limits."""

import cv2
import numpy as np


def decode_stored(
    data: bytes, name: str = "a stored picture", mode: int = cv2.IMREAD_COLOR
) -> np.ndarray:
    """BGR uint8 [h, w, 3], or as OpenCV is told to read it. ValueError, with the name: it is none."""
    try:
        picture = cv2.imdecode(np.frombuffer(data, np.uint8), mode)
    except cv2.error:  # of an empty file
        picture = None
    if picture is None:
        raise ValueError(f"{name} is not a picture that can be read ({len(data)} bytes)")
    return picture
