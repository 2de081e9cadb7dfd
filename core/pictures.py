"""Pictures that this program has stored itself, decoded. What others made is decoded by ingest, within limits."""

import cv2
import numpy as np

from core.paths import Workspace


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


def load_keyframe(
    workspace: Workspace, sha256: str, read_mode: int = cv2.IMREAD_COLOR_RGB
) -> np.ndarray:
    """A picture by its name: RGB uint8 [h, w, 3], or as OpenCV is told to read it."""
    return decode_stored(workspace.keyframe(sha256).read_bytes(), f"keyframe {sha256}", read_mode)


def keyframe_luma(workspace: Workspace, sha256: str, side_px: int) -> np.ndarray:
    """The brightness of a picture by its name, uint8 [side_px, side_px]: means of what each pixel covers."""
    luma = load_keyframe(workspace, sha256, cv2.IMREAD_GRAYSCALE)
    return cv2.resize(luma, (side_px, side_px), interpolation=cv2.INTER_AREA)
