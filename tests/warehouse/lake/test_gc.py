"""The sweep deletes what the lake does not list, and nothing else; gc also what only old snapshots list."""

import os
import time
from datetime import UTC, datetime
from pathlib import Path

import pytest

from core.paths import Workspace
from core.tables import TABLES
from tests.kits.lake_kit import frames, stage_run
from warehouse.lake import Lake, digest
from warehouse.lake.gc import GRACE_S, collect, sweep

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
    assert counts(filled, 1) == {"keyframes": 1}
