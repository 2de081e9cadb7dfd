"""Keyframes in a workspace: JPEGs named after their contents, so that equal pictures are stored once."""

from core.files import write_file
from core.paths import Workspace


def store_keyframe(workspace: Workspace, sha256: str, jpeg: bytes) -> bool:
    """Store a picture unless it is there; returns whether it is new."""
    path = workspace.keyframe(sha256)
    if path.exists():
        path.touch()  # or a sweep could take it before a table names it
        return False
    write_file(path, jpeg)
    return True
