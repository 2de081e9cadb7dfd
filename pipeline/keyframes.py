"""Keyframes in a workspace: JPEGs named after their contents, so that equal pictures are stored once."""

from collections.abc import Collection, Mapping

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


def coarse_keyframes(lake: Lake, dataset: str, episodes: Collection[int]) -> dict[tuple[int, str], dict[int, str]]:
    """The names of the pictures that every annotator sees, by episode and camera, then by frame. One query for all."""
    if not episodes:
        return {}
    rows = lake.rows(
        "SELECT episode_index, camera, frame_index, sha256 FROM keyframes WHERE dataset = ? "
        "AND list_contains(?, episode_index) AND purpose = 'coarse' ORDER BY ALL",
        [dataset, sorted(episodes)],
    )
    named: dict[tuple[int, str], dict[int, str]] = {}
    for episode_index, camera, frame_index, sha256 in rows:
        named.setdefault((episode_index, camera), {})[frame_index] = sha256
    return named


def load_keyframes(workspace: Workspace, named: Mapping[int, str]) -> dict[int, np.ndarray]:
    """The pictures of some names, RGB uint8 [h, w, 3], by frame."""
    pictures = {}
    for frame_index, sha256 in named.items():
        jpeg = np.frombuffer(workspace.keyframe(sha256).read_bytes(), np.uint8)
        bgr = cv2.imdecode(jpeg, cv2.IMREAD_COLOR)
        assert bgr is not None, f"keyframe {sha256} is no picture"
        pictures[frame_index] = cv2.cvtColor(bgr, cv2.COLOR_BGR2RGB)
    return pictures
