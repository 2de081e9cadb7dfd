"""Keyframes in a workspace: JPEGs named after their contents, so that equal pictures are stored once."""

import cv2
import numpy as np

from core.files import write_file
from core.paths import Workspace
from warehouse.lake import Lake


def store_keyframe(workspace: Workspace, sha256: str, jpeg: bytes) -> bool:
    """Store a picture unless it is there; returns whether it is new."""
    path = workspace.keyframe(sha256)
    if path.exists():
        path.touch()  # or a sweep could take it before a table names it
        return False
    write_file(path, jpeg)
    return True


def run_keyframes(lake: Lake, dataset: str, episode_index: int, camera: str) -> dict[int, np.ndarray]:
    """The pictures of one camera that every annotator sees, RGB uint8 [h, w, 3] by frame."""
    rows = lake.rows(
        "SELECT frame_index, sha256 FROM keyframes WHERE dataset = ? AND episode_index = ? AND camera = ? "
        "AND purpose = 'coarse' ORDER BY 1",
        [dataset, episode_index, camera],
    )
    pictures = {}
    for frame_index, sha256 in rows:
        jpeg = np.frombuffer(lake.workspace.keyframe(sha256).read_bytes(), np.uint8)
        bgr = cv2.imdecode(jpeg, cv2.IMREAD_COLOR)
        assert bgr is not None, f"keyframe {sha256} is no picture"
        pictures[frame_index] = cv2.cvtColor(bgr, cv2.COLOR_BGR2RGB)
    return pictures
