"""Folders in the system's temporary place that go with the process that made them.

A process that is killed leaves its folder behind. Each holds a lock for as long as it lives, so the next process that
makes such a folder knows whose are left, and deletes them.
"""

import fcntl
import os
import shutil
import tempfile
from contextlib import suppress
from pathlib import Path
from types import TracebackType

PREFIX, LOCK = "proccorpus-", ".lock"


class ScratchFolder:
    """A new folder of this process alone, at `path`; `close` deletes it. What killed processes left is deleted first.

    Raises OSError: the temporary place is full, or cannot be written to.
    """

    def __init__(self) -> None:
        delete_left()
        self.path = Path(tempfile.mkdtemp(prefix=PREFIX))
        # It gets its name once it is locked: without a lock, or locked, a folder is left alone
        half = self.path / f"{LOCK}.new"
        self._lock = os.open(half, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
        fcntl.flock(self._lock, fcntl.LOCK_EX)
        half.rename(self.path / LOCK)

    def close(self) -> None:
        shutil.rmtree(self.path, ignore_errors=True)
        with suppress(OSError):  # closed before
            os.close(self._lock)
        self._lock = -1

    def __enter__(self) -> Path:
        return self.path

    def __exit__(self, kind: type | None, e: BaseException | None, trace: TracebackType | None) -> None:
        self.close()


def delete_left() -> None:
    """Delete the folders of processes that are gone; those of other users are theirs."""
    for folder in Path(tempfile.gettempdir()).glob(f"{PREFIX}*"):
        # Another process may be first with each of these
        with suppress(OSError):
            if folder.lstat().st_uid != os.getuid():
                continue
            lock = os.open(folder / LOCK, os.O_RDWR | os.O_NOFOLLOW)
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(folder, ignore_errors=True)
            finally:
                os.close(lock)
