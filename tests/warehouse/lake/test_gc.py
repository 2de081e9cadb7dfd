"""The sweep deletes what the lake does not list, and nothing else; gc also what only old snapshots list."""

import os
import subprocess
import sys
import time
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from threading import Event

import pytest

from core.paths import Workspace
from core.tables import TABLES
from tests.kits.lake_kit import frames, segments, stage_run
from warehouse.lake import Lake, digest
from warehouse.lake.gc import GRACE_S, collect, merge, small_files, sweep

OLD = time.time() - GRACE_S - 60
LISTED, RELEASED, LOST = "a-00000-train-111.tar", "a-00000-train-222.tar", "a-00000-train-333.tar"


def put(path: Path, old: bool = True) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"x")
    if old:
        os.utime(path, (OLD, OLD))
    return path


@pytest.fixture
def filled(workspace: Workspace) -> Lake:
    lake = Lake(workspace)
    keyframe = {"dataset": "a", "episode_index": 0, "camera": "c", "frame_index": 0, "chunk": 0, "sha256": "aa11"}
    shard = {"shard": LISTED, "split": "train", "dataset": "a", "chunk": 0}
    lake.publish(
        stage_run(),
        {
            "frames": frames(n=5000),
            "keyframes": TABLES["keyframes"].rows([keyframe]),
            "shards": TABLES["shards"].rows([shard]),
        },
    )
    lake.upsert("release", release_shards=TABLES["release_shards"].rows([{"name": "r1", "shard": RELEASED}]))
    return lake


def test_what_is_old_and_unlisted_goes_and_the_rest_stays(filled: Lake):
    w = filled.workspace
    keep = [
        put(w.keyframe("aa11")),
        put(w.keyframe("bb22"), old=False),  # a build that runs now has not recorded it yet
        put(w.shard("train", LISTED)),
        put(w.shard("train", LISTED.replace(".tar", ".index.json"))),
        put(w.shard("train", RELEASED)),
        put(w.shard("train", RELEASED.replace(".tar", ".index.json"))),
        put(w.shard("train", LOST), old=False),
        put(w.root / "models" / "m" / "model.safetensors"),
        put(w.root / "exports" / "x" / LOST),
        *w.data.rglob("*.parquet"),
    ]
    go = [
        put(w.keyframe("cc33")),
        put(w.keyframe("aa11").with_name(".tmp-abc")),
        put(w.shard("val", LOST)),
        put(w.shard("val", LOST.replace(".tar", ".index.json"))),
        put(w.shard("val", ".tmp-def")),
    ]
    before = digest(filled)
    assert sweep(filled) == len(go)
    assert [p for p in go if p.exists()] == []
    assert [p for p in keep if not p.exists()] == []
    assert digest(filled) == before
    assert sweep(filled) == 0


def test_data_that_no_snapshot_names_goes(filled: Lake):
    stray = put(filled.workspace.data / "main" / "frames" / "dataset=a" / "chunk=0" / "stray.parquet")
    assert sweep(filled) == 1
    assert not stray.exists()
    assert filled.rows("SELECT count(*) FROM frames") == [(5000,)]


def test_what_a_snapshot_names_stays(filled: Lake):
    snapshot = filled.snapshot()
    filled.publish(stage_run(), {"frames": frames(n=5000, value=0.5)})
    assert sweep(filled) == 0
    old = Lake(filled.workspace, read_only=True, snapshot=snapshot)
    assert old.rows("SELECT count(*), max(visual_change) FROM frames") == [(5000, pytest.approx(0.1))]


def test_a_shard_that_a_republish_drops_goes_unless_a_release_names_it(filled: Lake):
    listed, released = put(filled.workspace.shard("train", LISTED)), put(filled.workspace.shard("train", RELEASED))
    filled.publish(stage_run(), {"shards": TABLES["shards"].empty()})
    assert sweep(filled) == 1
    assert (listed.exists(), released.exists()) == (False, True)


def test_the_grace_can_be_shortened(filled: Lake):
    young = put(filled.workspace.keyframe("dd44"), old=False)
    assert sweep(filled) == 0
    assert sweep(filled, grace_s=-5.0) == 1
    assert not young.exists()


def counts(lake: Lake, keep_days: float, *, dry_run: bool = False) -> dict[str, int]:
    return {f.what: f.files for f in collect(lake, keep_days, dry_run=dry_run) if f.files}


def test_old_snapshots_go_with_their_data_and_pinned_ones_stay(filled: Lake):
    pinned = filled.freeze({"name": "r1"}, TABLES["release_shards"].empty())
    for value in (0.5, 0.7):
        filled.publish(stage_run(), {"frames": frames(n=5000, value=value)})
    files = set(filled.workspace.data.rglob("*.parquet"))
    before = digest(filled)
    assert counts(filled, 1) == {}, "all is younger"
    planned = counts(filled, 0, dry_run=True)
    assert set(filled.workspace.data.rglob("*.parquet")) == files
    assert counts(filled, 0) == planned
    gone = files - set(filled.workspace.data.rglob("*.parquet"))
    assert planned["lake data"] == len(gone) == 1, "that with 0.5, which neither the release nor the present has"
    assert digest(filled) == before
    old = Lake(filled.workspace, read_only=True, snapshot=pinned)
    assert old.rows("SELECT count(*), max(visual_change) FROM frames") == [(5000, pytest.approx(0.1))]
    assert counts(filled, 0) == {}


def test_keyframes_of_a_release_stay(filled: Lake):
    shard = {"name": "r1", "split": "train", "shard": LISTED, "dataset": "a", "chunk": 0}
    filled.freeze({"name": "r1", "created_at": datetime.now(UTC)}, TABLES["release_shards"].rows([shard]))
    keyframe, loose = put(filled.workspace.keyframe("aa11")), put(filled.workspace.keyframe("bb22"))
    filled.publish(stage_run(), {"keyframes": TABLES["keyframes"].empty()})
    assert sweep(filled) == 1
    assert (keyframe.exists(), loose.exists()) == (True, False)
    filled.remove("delete", "name = 'r1'", [], "releases", "release_shards")
    assert counts(filled, 1) == {"keyframes": 1, "files set aside": 1}, "the loose one, too"


RUNS = ("run1", "run2", "run3")


def label(lake: Lake, label_run: str, name: str = "reach", chunk: int = 0) -> None:
    """A label run publishes its segments: a file of its own."""
    rows = segments(chunk=chunk, label_run=label_run, name=name, episodes=range(10 * chunk, 10 * chunk + 10))
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
    lake, held = Lake(workspace), {}
    for chunk in (0, 1):
        for run in RUNS:
            label(lake, run, chunk=chunk)
    for release in ("r1", "r2"):
        snapshot = lake.freeze({"name": release}, TABLES["release_shards"].empty())
        held[snapshot] = digest(lake)
        label(lake, "run2", name=f"after {release}")
    held[lake.snapshot()] = digest(lake)
    return lake, held


def held_now(lake: Lake, snapshots: Iterable[int]) -> dict[int, dict[str, str]]:
    return {s: digest(Lake(lake.workspace, read_only=True, snapshot=s)) for s in snapshots}


def test_small_files_are_merged_and_no_snapshot_changes(labelled: tuple[Lake, dict]):
    lake, held = labelled
    before = rows_files(lake)
    assert listed_files(lake) == (6, 0)
    assert small_files(lake) == 6
    assert merge(lake) == (6, 2)
    assert listed_files(lake) == (2, 0)
    assert merge(lake) == (0, 0)
    assert held_now(lake, held) == held
    assert digest(lake) == held[max(held)]
    # Somebody may be reading what was merged: it stays for a while, whoever clears up
    assert rows_files(lake) == before + 2
    collect(lake, keep_days=7)
    sweep(lake)
    assert rows_files(lake) == before + 2
    assert sweep(lake, grace_s=-5.0) > 0
    assert rows_files(lake) < before
    assert held_now(lake, held) == held


def test_what_was_merged_is_spared_while_expired_data_goes(filled: Lake):
    for run in RUNS:
        label(filled, run)
    filled.publish(stage_run(), {"frames": frames(n=5000, value=0.5)})
    before = rows_files(filled)
    assert merge(filled) == (3, 1)
    assert counts(filled, 0)["lake data"] == 1, "the first frames"
    assert rows_files(filled) == before + 1 - 1
    collect(filled, 0, grace_s=-5.0)
    assert rows_files(filled) == before + 1 - 1 - 3


def test_a_label_of_a_merged_file_can_be_made_again(labelled: tuple[Lake, dict]):
    lake, held = labelled
    merge(lake)
    label(lake, "run1", name="again")
    assert lake.rows("SELECT label_run, name, count(*) FROM segments WHERE chunk = 0 GROUP BY ALL ORDER BY 1") == [
        ("run1", "again", 20), ("run2", "after r2", 20), ("run3", "reach", 20)
    ]  # fmt: skip
    now = digest(lake)
    assert listed_files(lake)[1] == 1, "a file says what of the merged one is deleted"
    merge(lake)
    assert listed_files(lake) == (2, 0)
    assert digest(lake) == now
    assert held_now(lake, held) == held


def test_a_build_publishes_while_files_are_merged(labelled: tuple[Lake, dict]):
    lake, _ = labelled
    done = Event()

    def build() -> int:
        own, published = Lake(lake.workspace), 0
        while not done.is_set() or published < 2:
            label(own, f"other{published}", chunk=published % 2)
            published += 1
        own.con.close()
        return published

    with ThreadPoolExecutor(1) as pool:
        building = pool.submit(build)
        try:
            files, _ = merge(lake)
        finally:
            done.set()
        published = building.result()
    assert files >= 6
    runs = lake.rows("SELECT label_run, count(*) FROM segments WHERE starts_with(label_run, 'other') GROUP BY 1")
    assert dict(runs) == {f"other{k}": 20 for k in range(published)}
    assert lake.rows("SELECT count(*) FROM segments") == [(20 * (2 * len(RUNS) + published),)]


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


def test_killed_while_files_are_merged(labelled: tuple[Lake, dict]):
    lake, held = labelled
    lake.con.close()
    for wait_s in (0.03, 0.15):
        command = [sys.executable, "-c", MERGING, str(lake.workspace.root)]
        process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
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
        again = Lake(lake.workspace)
        assert digest(again) == held[max(held)]
        assert held_now(again, held) == held
        again.con.close()
    again = Lake(lake.workspace)
    merge(again)
    sweep(again, grace_s=-5.0)
    assert listed_files(again) == (2, 0)
    assert held_now(again, held) == held
    listed = again.rows("SELECT count(*) FROM __ducklake_metadata_lake.ducklake_data_file")[0][0]
    deletes = again.rows("SELECT count(*) FROM __ducklake_metadata_lake.ducklake_delete_file")[0][0]
    assert rows_files(again) == listed + deletes, "no file is left that nothing lists"
