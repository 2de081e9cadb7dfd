"""The lake: DuckLake over Parquet with a SQL catalog, opened, published to and read.

Commits are serialised by one lock (`place`); readers need none. For a team: a Postgres catalog, data in a bucket.
"""

import os
from contextlib import nullcontext
from functools import cache
from pathlib import Path

from core.files import room_in
from core.paths import Workspace
from warehouse.lake.connection import connect
from warehouse.lake.migrations import SCHEMA_VERSION, checked_version, migrate, upgrade
from warehouse.lake.place import LakeError, locked, place
from warehouse.lake.publishing import LakeWriter


class Lake(LakeWriter):
    """One process's connection to a workspace's lake. Not for sharing between threads.

    One of an earlier version is upgraded where it is opened to write, after a copy of its catalog. Raises LakeError: no
    workspace, a catalog that is not usable, a lake of a later version.
    """

    def __init__(self, workspace: Workspace, *, read_only: bool = False, snapshot: int | None = None) -> None:
        if not read_only:
            _make_folders(workspace)
        # A writer holds the lock while it opens, so that two processes never migrate at once
        with room_in(workspace.root), nullcontext() if read_only else locked(workspace):
            # One thread: builds are parallel by processes, and with several a query was seen to spin for ever on a
            # crowded machine, waiting for a worker that had missed its wake-up (DuckDB 1.5.5)
            super().__init__(workspace, connect(workspace, read_only=read_only, snapshot=snapshot, threads=1))
            version = checked_version(self.con, workspace, at=snapshot, may_be_older=True)
            if version is None and read_only:
                raise LakeError(workspace.absence)
            if version is None:
                migrate(self)
            elif version < SCHEMA_VERSION and not read_only:
                upgrade(self)


def _make_folders(workspace: Workspace) -> None:
    workspace.root.mkdir(parents=True, exist_ok=True)
    at = place(workspace)
    if not at.is_bucket:
        os.makedirs(at.data, exist_ok=True)


@cache
def _cached(root: str, process: int) -> Lake:
    return Lake(Workspace(Path(root)))


def open_lake(workspace: Workspace) -> Lake:
    """This process's writable lake: opening costs 0.1 s of CPU, so it is kept."""
    return _cached(os.path.abspath(workspace.root), os.getpid())


def lake_to_read(workspace: Workspace) -> Lake:
    """The lake of an existing workspace, for people's questions. Raises LakeError: of another version, among others."""
    lake = Lake(workspace, read_only=True)
    checked_version(lake.con, workspace)
    return lake


def forget_lakes() -> None:
    """Open anew what open_lake keeps: connections that a server has dropped are of no more use."""
    _cached.cache_clear()
