"""Stored keyframes: which a workspace has of an episode, and their pictures."""

from collections.abc import Collection

import cv2
import numpy as np

from core.paths import Workspace
from warehouse.lake.lake import Lake


def coarse_keyframes(
    lake: Lake, dataset: str, episodes: Collection[int], chunk: int | None = None
) -> dict[tuple[int, str], dict[int, str]]:
    """The names of the pictures that every annotator sees, by episode and camera, then by frame. One query for all.

    chunk: of the episodes, where they are of one.
    """
    if not episodes:
        return {}
    rows = lake.rows(
        "SELECT episode_index, camera, map_from_entries(list({'k': frame_index, 'v': sha256} ORDER BY frame_index)) "
        "FROM keyframes WHERE dataset = $1 AND list_contains($2, episode_index) AND purpose = 'coarse' "
        "AND ($3::INTEGER IS NULL OR chunk = $3) GROUP BY 1, 2",
        [dataset, sorted(episodes), chunk],
    )
    return {(episode_index, camera): named for episode_index, camera, named in rows}


def load_keyframe(workspace: Workspace, sha256: str, how: int = cv2.IMREAD_COLOR_RGB) -> np.ndarray:
    """A picture by its name: RGB uint8 [h, w, 3], or as OpenCV is told to read it."""
    picture = cv2.imdecode(np.frombuffer(workspace.keyframe(sha256).read_bytes(), np.uint8), how)
    assert picture is not None, f"keyframe {sha256} is no picture"
    return picture
