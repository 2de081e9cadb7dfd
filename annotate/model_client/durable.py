"""Replies on disk, also after a power cut.

Not core.files: that promises that a reader sees the whole file or none, and after a power cut it may be none. A reply
was paid for, so here the folder's entry is on disk, too, when the call returns. And the temporary file's name has no
suffix of ours: left behind by a kill, it looks like no reply and no pack.
"""

import os
from pathlib import Path
from uuid import uuid4


def write_durably(path: Path, data: bytes) -> None:
    """The file and its name are on disk when this returns; until then a reader sees what was there before."""
    temporary = path.parent / f".tmp-{uuid4().hex}"
    try:
        _write_synced(temporary, data)
    except FileNotFoundError:
        path.parent.mkdir(parents=True, exist_ok=True)
        _sync_folder(path.parent.parent)
        _write_synced(temporary, data)
    try:
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    _sync_folder(path.parent)


def _write_synced(path: Path, data: bytes) -> None:
    try:
        with path.open("wb") as f:  # buffered: one write of the kernel's may take only part of the bytes
            f.write(data)
            f.flush()
            os.fsync(f.fileno())
    except OSError:
        path.unlink(missing_ok=True)
        raise


def _sync_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
