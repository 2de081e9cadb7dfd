"""The corpus at rest: lake, shards, releases, exports. `warehouse.connect()` is the way in for notebooks."""

import os
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import duckdb


def connect(
    workspace: str | Path | None = None, *, release: str | None = None, snapshot: int | None = None
) -> "duckdb.DuckDBPyConnection":
    """A read-only DuckDB connection to a workspace's tables and views, as they are now, or were.

    workspace: default PROCCORPUS_WORKSPACE, else ./workspace. Raises LakeError (no workspace, no such snapshot) or
    SqlError (no such release).
    """
    from core.paths import Workspace
    from warehouse.lake.sql import open_for_users, release_snapshot

    space = Workspace(Path(workspace or os.environ.get("PROCCORPUS_WORKSPACE") or "workspace").resolve())
    return open_for_users(space, release_snapshot(space, release) if release else snapshot)
