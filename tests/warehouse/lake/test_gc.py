"""The sweep deletes what the lake does not list, and nothing else; gc also what only old snapshots list."""

import subprocess
import sys
import time
from collections.abc import Iterable

import pytest

from core.paths import Workspace
from core.tables import TABLES
from tests.kits.lake_kit import frames, segments, stage_run
from warehouse.lake import Lake, digest, gc
from warehouse.lake.gc import collect, merge, sweep

RUNS = ("run1", "run2", "run3")


def label(lake: Lake, label_run: str, name: str = "reach", chunk: int = 0) -> None:
    """A label run publishes its segments: a file of its own."""
    rows = segments(
        chunk=chunk, label_run=label_run, name=name, episodes=range(10 * chunk, 10 * chunk + 10)
    )
    lake.publish(stage_run(stage="segments", chunk=chunk, label_run=label_run), {"segments": rows})


def rows_files(lake: Lake) -> int:
    return len(list(lake.workspace.data.rglob("*.parquet")))


def listed_files(lake: Lake) -> tuple[int, int]:
    """Files of segments that the lake lists now: with rows, and with deletions."""
    sql = "SELECT file_count, delete_file_count FROM ducklake_table_info('lake') WHERE table_name = 'segments'"
    return lake.rows(sql)[0]


@pytest.fixture
def labelled(workspace: Workspace) -> tuple[Lake, dict[int, dict[str, str]]]:
    """Labels of three runs for two chunks, some made again; with what each kept snapshot holds."""
    lake = Lake(workspace)
    digests = {}
    for chunk in (0, 1):
        for run in RUNS:
            label(lake, run, chunk=chunk)
    for release in ("r1", "r2"):
        snapshot = lake.freeze({"name": release}, TABLES["release_shards"].empty())
        digests[snapshot] = digest(lake)
        label(lake, "run2", name=f"after {release}")
    digests[lake.snapshot()] = digest(lake)
    return lake, digests


def held_now(lake: Lake, snapshots: Iterable[int]) -> dict[int, dict[str, str]]:
    return {s: digest(Lake(lake.workspace, read_only=True, snapshot=s)) for s in snapshots}


def test_what_was_merged_is_spared_while_expired_data_goes(workspace):
    lake = Lake(workspace)
    lake.publish(stage_run(), {"frames": frames(n=5000)})
    for run in RUNS:
        label(lake, run)
    lake.publish(stage_run(), {"frames": frames(n=5000, value=0.5)})
    num_files = rows_files(lake)
    assert merge(lake) == (3, 1)
    assert {f.what: f.files for f in collect(lake, 0)}["lake data"] == 1, "the first frames"
    assert rows_files(lake) == num_files + 1 - 1
    collect(lake, 0, grace_s=-5.0)
    assert rows_files(lake) == num_files + 1 - 1 - 3


def test_a_label_of_a_merged_file_can_be_made_again(labelled):
    lake, digests = labelled
    merge(lake)
    label(lake, "run1", name="again")
    assert lake.rows("SELECT label_run, name, count(*) FROM segments WHERE chunk = 0 GROUP BY ALL ORDER BY 1") == [
        ("run1", "again", 20), ("run2", "after r2", 20), ("run3", "reach", 20)
    ]  # fmt: skip
    digest_now = digest(lake)
    assert listed_files(lake)[1] == 1, "a file says what of the merged one is deleted"
    merge(lake)
    assert listed_files(lake) == (2, 0)
    assert digest(lake) == digest_now
    assert held_now(lake, digests) == digests


def test_pictures_that_nothing_lists_are_named(workspace):
    lake = Lake(workspace)
    row = {"dataset": "a", "chunk": 0, "episode_index": 0, "camera": "front", "label_run": ""}
    sizes = {"frame_index": 0, "width_px": 8, "height_px": 8, "purpose": "coarse"}
    listed = TABLES["keyframes"].rows([row | sizes | {"sha256": "a" * 64}])
    lake.publish(stage_run(stage="frames", chunk=0), {"keyframes": listed})
    for sha256 in ("a" * 64, "b" * 64, "c" * 64):
        path = workspace.keyframe(sha256)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    unlisted = gc.unlisted_keyframes(lake, grace_s=-5.0)
    assert sorted(path.stem[0] for path in unlisted) == ["b", "c"]


MERGING = """
import sys
from pathlib import Path
from core.paths import Workspace
from warehouse.lake import Lake
from warehouse.lake.gc import merge
lake = Lake(Workspace(Path(sys.argv[1])))
print("ready", flush=True)
sys.stdin.readline()
merge(lake)
"""


@pytest.mark.slow
def test_killed_while_files_are_merged(labelled):
    lake, digests = labelled
    lake.con.close()
    for wait_s in (0.03, 0.15):
        command = [sys.executable, "-c", MERGING, str(lake.workspace.root)]
        process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        process.stdin.write("\n")
        process.stdin.flush()
        time.sleep(wait_s)
        process.kill()
        process.wait()
        process.stdin.close()
        process.stdout.close()
        reopened = Lake(lake.workspace)
        assert digest(reopened) == digests[max(digests)]
        assert held_now(reopened, digests) == digests
        reopened.con.close()
    reopened = Lake(lake.workspace)
    merge(reopened)
    sweep(reopened, grace_s=-5.0)
    assert listed_files(reopened) == (2, 0)
    assert held_now(reopened, digests) == digests
    listed = reopened.rows("SELECT count(*) FROM __ducklake_metadata_lake.ducklake_data_file")[0][0]
    deletes = reopened.rows("SELECT count(*) FROM __ducklake_metadata_lake.ducklake_delete_file")[
        0
    ][0]
    assert rows_files(reopened) == listed + deletes, "no file is left that nothing lists"
