"""Files that survive kills and power cuts."""

import os
from pathlib import Path
from uuid import uuid4


def write_durably(path: Path, data: bytes) -> None:
    """A reader sees the whole file or none, also after a power cut."""
    temporary = path.parent / f".tmp-{uuid4().hex}"  # left behind by a kill, it looks like no reply and no pack
    try:
        write_synced(temporary, data)
    except FileNotFoundError:
        path.parent.mkdir(parents=True, exist_ok=True)
        sync_folder(path.parent.parent)
        write_synced(temporary, data)
    try:
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    sync_folder(path.parent)


def write_synced(path: Path, data: bytes) -> None:
    try:
        with path.open("wb") as f:  # buffered: one write of the kernel's may take only part of the bytes
            f.write(data)
            f.flush()
            os.fsync(f.fileno())
    except OSError:
        path.unlink(missing_ok=True)
        raise


def sync_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
