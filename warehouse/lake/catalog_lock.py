"""Readers and committers of a SQLite catalog take turns, so that none of them has to wait in SQLite.

SQLite as DuckDB brings it cannot sleep for less than a second: whoever meets a lock of another process does nothing for
that long, however soon the lock is gone. Two workers that publish stage after stage spent a third of their time so.
"""

import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from core.paths import Workspace

LOOK_S, PATIENCE_S = 0.002, 2.0


@contextmanager
def reading_turn(workspace: Workspace) -> Iterator[None]:
    """Beside other readers, and while nobody commits."""
    with _turn(workspace, fcntl.LOCK_SH):
        yield


@contextmanager
def committing_turn(workspace: Workspace) -> Iterator[None]:
    """While nobody reads or commits."""
    with _turn(workspace, fcntl.LOCK_EX):
        yield


@contextmanager
def _turn(workspace: Workspace, kind: int) -> Iterator[None]:
    """Promises nothing: where there is no turn within PATIENCE_S, or none can be had, SQLite's own locks decide."""
    handle = None
    # A lock on the folder itself: no file has to be made, and one more lock on the catalog would undo SQLite's
    if workspace.catalog.exists():
        with suppress(OSError):
            handle = os.open(workspace.catalog.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        end = time.monotonic() + PATIENCE_S
        with suppress(OSError):  # a file system without such locks
            while handle is not None and time.monotonic() < end and not _is_locked(handle, kind):
                time.sleep(LOOK_S)
        yield
    finally:
        if handle is not None:
            os.close(handle)


def _is_locked(handle: int, kind: int) -> bool:
    try:
        fcntl.flock(handle, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
