"""Keyframes in a workspace: JPEGs named after their contents, so that equal pictures are stored once."""

from collections import deque
from collections.abc import Collection
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Self

import cv2
import numpy as np

from core.files import write_file
from core.paths import Workspace
from warehouse.lake.lake import Lake

WRITERS = 4  # pictures that wait for the disk at a time


def store_keyframe(workspace: Workspace, sha256: str, jpeg: bytes) -> None:
    """Store a picture unless it is there."""
    if not _is_there(path := workspace.keyframe(sha256)):
        write_file(path, jpeg)


def _is_there(path: Path) -> bool:
    if not path.exists():
        return False
    path.touch()  # or a sweep could take it before a table names it
    return True


@dataclass
class KeyframeWriter:
    """Stores pictures beside the work that makes them, which would wait for the disk at each of them.

    A context manager: when its block ends well, all of them are on the disk. Raises OSError, also from `store`.
    """

    workspace: Workspace
    new_bytes: int = 0
    _pool: ThreadPoolExecutor = field(default_factory=lambda: ThreadPoolExecutor(WRITERS, "keyframes"))
    _stored: set[str] = field(default_factory=set)
    _writing: deque[Future[None]] = field(default_factory=deque)

    def store(self, sha256: str, jpeg: bytes) -> None:
        path = self.workspace.keyframe(sha256)
        if sha256 in self._stored or _is_there(path):
            return
        self._stored.add(sha256)
        self.new_bytes += len(jpeg)
        self._writing.append(self._pool.submit(write_file, path, jpeg))
        # No more of them in memory than these
        if len(self._writing) > 8 * WRITERS:
            self._writing.popleft().result()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type | None, e: BaseException | None, trace: TracebackType | None) -> None:
        try:
            while kind is None and self._writing:
                self._writing.popleft().result()
        finally:
            self._pool.shutdown(cancel_futures=True)


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
