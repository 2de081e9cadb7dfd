"""The doctor names what is broken and what to do, and mends what a build makes again."""

import os
import shutil
import subprocess

import pytest

from core.paths import Workspace
from ingest.episode import Finding
from pipeline.config import resolve
from pipeline.doctor import diagnose
from pipeline.plan import CURRENT, plan
from pipeline.stages import stage_specs
from tests.kits.cli_kit import digest_of
from tests.kits.files import flip_bit
from tests.kits.lake_kit import opened, segments, stage_run
from warehouse.lake import Lake
from warehouse.lake.doctor import ERROR, WARNING
from warehouse.lake.doctor_repair import repair
from warehouse.lake.gc import GRACE_S
from warehouse.releases.release import create_release, get_release, verify_release

pytestmark = pytest.mark.slow


def of(troubles: list[Finding], severity: str) -> dict[str, Finding]:
    return {t.reason: t for t in troubles if t.severity == severity}


def test_damaged_shards_and_pictures(made, own):
    """Sizes and absences are seen at once, single bits by their hashes."""
    tars = sorted((own.space.root / "shards").rglob("*.tar"))
    pictures = sorted((own.space.root / "keyframes").rglob("*.jpg"))
    flip_bit(tars[0])
    flip_bit(pictures[0])
    assert of(diagnose(own.space), ERROR) == {}
    later_troubles = [t for t in diagnose(own.space, hashes=True) if t.severity == ERROR]
    assert {t.reason for t in later_troubles} == {"shard", "keyframes"}
    assert [t.file for t in later_troubles if t.reason == "shard"] == [str(tars[0])]
    os.truncate(tars[1], 1024)
    tars[2].with_suffix(".index.json").unlink()
    pictures[1].unlink()
    troubles = diagnose(own.space, hashes=True)
    assert {t.file for t in troubles if t.reason == "shard"} == set(map(str, tars[:3]))
    # A repair marks what is to be built again, and a build comes to what was there
    assert any("to be built again" in line for line in repair(own.space, troubles))
    assert "stale partitions" in of(diagnose(own.space), WARNING)
    own.rebuild()
    assert digest_of(own.space.root) == digest_of(made.space.root)
    assert of(diagnose(own.space, hashes=True), ERROR) == {}


def test_what_nothing_lists_is_a_warning_and_goes(own):
    old = 1_600_000_000
    strays = [
        own.space.root / p
        for p in ("keyframes/00/stray.jpg", "shards/train/x-1.tar", "shards/.tmp-half.tar")
    ]
    strays.append(own.space.data / "main/frames/ducklake-stray.parquet")
    for path in strays:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x")
        os.utime(path, (old, old))
    young = own.space.root / "keyframes/00/.tmp-young.jpg"
    young.write_bytes(b"x")
    troubles = diagnose(own.space)
    assert of(troubles, ERROR) == {}
    assert set(of(troubles, WARNING)) == {
        "orphaned lake data", "orphaned keyframes", "orphaned shards", "half-written files"
    }  # fmt: skip
    digest_before = digest_of(own.space.root)
    assert any("stay" in line for line in repair(own.space, troubles))
    assert not any(p.exists() for p in strays)
    assert young.exists(), f"it may belong to a build: it has not lain for {GRACE_S} s"
    assert digest_of(own.space.root) == digest_before


def test_labels_without_their_run(own):
    run = stage_run(stage="segments", dataset="tiny", label_run="nobody's")
    with opened(own.space) as lake:
        lake.publish(run, {"segments": segments("tiny", 0, "nobody's")})
    assert "nobody's" in of(diagnose(own.space), ERROR)["rows of segments"].detail


def test_a_backup_restored_under_another_path(own, tmp_path):
    """As docs/recovery.md says: the catalog by SQLite's own copy, then everything else."""
    with opened(own.space) as lake:
        create_release(lake, "one", allow=["unknown"])
    copied = tmp_path / "elsewhere" / "it's a copy"
    copied.mkdir(parents=True)
    code = (
        "import sqlite3, sys; sqlite3.connect(sys.argv[1]).execute('VACUUM INTO ?', [sys.argv[2]])"
    )
    subprocess.run(
        ["python3", "-c", code, own.space.catalog, copied / "catalog.sqlite"], check=True
    )
    for path in own.space.root.iterdir():
        if not path.name.startswith("catalog.sqlite"):
            subprocess.run(["cp", "-a", path, copied], check=True)
    restored = Workspace(copied)
    expected = digest_of(own.space.root)
    shutil.rmtree(own.space.root)
    assert diagnose(restored, hashes=True) == []
    assert digest_of(restored.root) == expected
    lake = Lake(restored)
    resolved_build = resolve(lake, own.build)
    steps = plan(
        lake,
        {resolved_build.name: stage_specs(resolved_build)},
        {resolved_build.name: resolved_build.source(restored.sources).fingerprint()},
    )
    assert {s.status for s in steps} == {CURRENT}
    assert verify_release(lake, get_release(lake, "one")) == []
