"""What pages state of an installation and of the shipped sample; written to docs/data/shipped.json.

    python -m benchmarks.shipped [--workspace workspace]

The workspace is one that `proccorpus demo` has made. How much the environment takes is counted as `du` does, in
blocks of the disk.
"""

import sys
from pathlib import Path
from typing import Any

from benchmarks.harness import options, write_json
from core.paths import ROOT, Workspace
from warehouse.lake import open_lake

FIGURES = ROOT / "docs" / "data" / "shipped.json"
BLOCK_BYTES = 512
QUEUE_SQL = """
    SELECT (SELECT count(*) FROM episodes WHERE coalesce(reason, 'ok') = 'ok') AS episodes, count(*) AS queued,
           (SELECT count(*) FROM episodes WHERE coalesce(reason, 'ok') = 'ok' AND success = false) AS failed,
           count(*) FILTER (e.success = false) AS failed_queued
    FROM review_queue q JOIN episodes e USING (dataset, episode_index)"""


def disk_bytes(folder: Path) -> int:
    """What the files of a folder take on the disk; one with several names counts once."""
    sizes = {}
    for path in folder.rglob("*"):
        status = path.lstat()
        sizes[status.st_dev, status.st_ino] = BLOCK_BYTES * status.st_blocks
    return sum(sizes.values())


def measured(workspace: Workspace, environment: Path) -> dict[str, Any]:
    """What FIGURES has."""
    lake = open_lake(workspace)
    [queue] = lake.dicts(QUEUE_SQL)
    return {"install_gb": round(disk_bytes(environment) / 1e9, 1)} | queue


if __name__ == "__main__":
    args = options(__doc__, workspace=Path("workspace"))
    write_json(FIGURES, measured(Workspace(args.workspace), Path(sys.prefix)))
