"""Floor 3, above `annotate`: the corpus at rest, as lake, shards, releases and exports. warehouse.lake stands lower: it
imports `core` and `ingest` alone.

`Lake` (warehouse.lake.lake) holds the tables, warehouse.shards.shard writes shards, `Release`
(warehouse.releases.release) freezes both, `ExportKind` (warehouse.exports.options) is a form that others read.
`warehouse.connect()` is the way in for notebooks.
"""

import os
from pathlib import Path
from typing import TYPE_CHECKING

from core.paths import Workspace

if TYPE_CHECKING:
    import duckdb


def connect(
    workspace: str | Path | None = None, *, release: str | None = None, snapshot: int | None = None
) -> "duckdb.DuckDBPyConnection":
    """A read-only DuckDB connection to a workspace's tables and views, as they are now, or were.

    workspace: default PROCCORPUS_WORKSPACE, else ./workspace. release: a name, or `latest`; scores and training runs of
    it are seen as they are now. Raises LakeError (no workspace, no such snapshot) or
    SqlError (no such release).
    """
    from warehouse.lake.sql import open_for_users, release_state

    space = Workspace(
        Path(workspace or os.environ.get("PROCCORPUS_WORKSPACE") or "workspace").resolve()
    )
    if release is None:
        return open_for_users(space, snapshot)
    name, snapshot = release_state(space, release)
    return open_for_users(space, snapshot, release=name)
