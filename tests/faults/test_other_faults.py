"""Files that a crash cut off, disks that cannot be read, clocks that jump, locks, two builds at once, old catalogs."""

import errno
import hashlib
import os
import random
import shutil
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from core.paths import Workspace
from core.tables import TABLES
from tests.kits.cli_kit import DONE, FAILED, ok, proccorpus, rows, without_progress
from tests.kits.fault_kit import (
    ROOT,
    Whole,
    assert_same_end,
    errors,
    wait_for,
)
from tests.kits.files import flip_bit
from tests.kits.patience import PATIENCE_S
from warehouse.lake import Lake, connection, place
from warehouse.lake.place import LakeError

FAKETIME = sorted(Path("/usr/lib").glob("*/faketime/libfaketime.so.1"))


@pytest.fixture
def copy(reference: Path, tmp_path) -> Path:
    """A finished workspace of the test's own."""
    return shutil.copytree(reference, tmp_path / "workspace")


def cut(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


def test_truncated_files_are_never_believed(corpus, copy, whole, tally, tmp_path):
    """Each kind under its final name, as a disk without a journal may leave it."""
    frames = sorted((copy / "lake/main/frames/dataset=long").rglob("*.parquet"))
    tars = sorted((copy / "shards").rglob("*.tar"))
    keyframe_hashes = [s for (s,) in rows(copy, "SELECT DISTINCT sha256 FROM keyframes ORDER BY 1")]
    broken = {
        "lake file of frames": frames[0],
        "shard": tars[0],
        "keyframes": Workspace(copy).keyframe(keyframe_hashes[0]),
        "shard ": tars[-1].with_suffix(".index.json"),
        "replies": Workspace(copy).responses / "replies.sqlite",
    }
    # The write-ahead log beside the file of replies would mend it
    with closing(sqlite3.connect(broken["replies"])) as replies:
        replies.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    for path in broken.values():
        cut(path)
    flipped = [tars[2], Workspace(copy).keyframe(keyframe_hashes[1])]
    for path in flipped:
        flip_bit(path)
    os.unlink(tars[1])
    os.unlink(Workspace(copy).keyframe(keyframe_hashes[-1]))
    old = time.time() - 7 * 86400
    for folder in ("keyframes/00", "shards/train", "responses/00", "."):
        (copy / folder).mkdir(exist_ok=True)
        half = copy / folder / ".tmp-crashed.jpg"
        half.write_bytes(b"half")
        os.utime(half, (old, old))

    doctor_result = proccorpus(
        "doctor", "--format", "json", "--hashes", cwd=tmp_path, workspace=copy
    )
    assert doctor_result.code == FAILED
    assert len(rows(copy, "SELECT DISTINCT shard FROM shards")) > 3
    assert {f["what"] for f in doctor_result.json["findings"]} >= {
        "lake file of frames",
        "half-written files",
        "replies",
    }
    # The remedy that doctor names for a file of replies
    broken["replies"].rename(tmp_path / "replies.sqlite")
    findings_seen = {}
    for _ in range(3):  # what cannot be read hides what lies behind it
        doctor_result = proccorpus(
            "doctor", "--repair", "--format", "json", "--hashes", cwd=tmp_path, workspace=copy
        )
        findings_seen |= {f["what"]: f for f in doctor_result.json["findings"]}
        result = corpus.build(copy)
        assert result.returncode == 0, result.stderr
        if not errors(copy, hashes=True):
            break
    assert_same_end(copy, whole)
    assert {"shard", "keyframes"} <= set(findings_seen)
    shard_files = (copy / "shards").rglob("*.tar")
    assert not any(
        hashlib.sha256(p.read_bytes()).hexdigest()[:12] not in p.name for p in shard_files
    )
    assert not list(copy.rglob(".tmp-*"))
    ok(proccorpus("doctor", cwd=tmp_path, workspace=copy))
    tally.add("files cut off by a crash", tried=len(broken) + 4, recovered=len(broken) + 4)


@pytest.mark.parametrize("fault", ["a folder in its place", "an input/output error", "cut off"])
def test_a_source_that_cannot_be_read(fault, tally, tmp_path):
    source = shutil.copytree(ROOT / "samples" / "sim_long", tmp_path / "source")
    build = ("build", "--source", source, "--name", "long", "--episodes", "0-1", "--workers", "1")
    video = sorted(source.glob("videos/*front*/*/*.mp4"))[0]
    stored = tmp_path / "stored"
    shutil.copy2(video, stored)
    if fault == "cut off":  # within the first of several episodes
        os.truncate(video, video.stat().st_size // 16)
    else:
        video.unlink()
        if fault == "a folder in its place":
            video.mkdir()
        else:
            video.symlink_to("/proc/self/mem")  # reading it is EIO
    result = proccorpus(*build, cwd=tmp_path, workspace=tmp_path / "workspace")
    assert "Traceback" not in result.err
    if result.code == 0:
        reasons = {
            r for (r,) in rows(tmp_path / "workspace", "SELECT DISTINCT reason FROM findings")
        }
        assert reasons, "a success without a word on a file that cannot be read"
    assert errors(tmp_path / "workspace") == []
    if video.is_dir() and not video.is_symlink():
        video.rmdir()
    else:
        video.unlink()
    shutil.copy2(stored, video)
    ok(proccorpus(*build, cwd=tmp_path, workspace=tmp_path / "workspace"))
    ok(proccorpus(*build, cwd=tmp_path, workspace=tmp_path / "clean"))
    clean = Whole.of(tmp_path / "clean")
    assert_same_end(tmp_path / "workspace", clean)
    tally.add("a source that cannot be read", tried=1, recovered=1)


def test_an_older_catalog(corpus, copy, whole, tally, tmp_path):
    """A copy from before half of the work: noticed, explained, mended by a build, and silent once it counts."""
    workspace = tmp_path / "second"
    older = ("build", "--config", corpus.config, "--episodes", "0-1")
    ok(proccorpus(*older, cwd=tmp_path, workspace=workspace))
    shutil.copy2(workspace / "catalog.sqlite", tmp_path / "older.sqlite")
    assert corpus.build(workspace).returncode == 0
    shutil.copy2(tmp_path / "older.sqlite", workspace / "catalog.sqlite")
    doctor_result = ok(
        proccorpus("doctor", "--format", "json", cwd=tmp_path, workspace=workspace)
    ).json
    assert "older catalog" in {f["what"] for f in doctor_result["findings"]}
    result = corpus.build(workspace)
    assert result.returncode == 0
    assert "an older copy replaced it" in result.stderr
    assert_same_end(workspace, whole)
    assert proccorpus("recover", cwd=tmp_path, workspace=workspace).code == DONE
    second_result = corpus.build(workspace)
    assert (second_result.returncode, without_progress(second_result.stderr)) == (0, "")
    tally.add("an older catalog restored", tried=1, recovered=1)


def test_the_clock_jumps(corpus, whole, tally, seed, tmp_path):
    """Forwards, far back and forwards again, while a build runs."""
    if not FAKETIME:
        pytest.skip("no libfaketime: make faults installs Debian's, where it can")
    rng = random.Random(seed + 4)
    workspace = tmp_path / "workspace"
    clock = tmp_path / "clock"
    jumps = ["+3d", "-400d", "+30d"]
    clock.write_text("+0")
    env = {
        "LD_PRELOAD": str(FAKETIME[0]),
        "FAKETIME_TIMESTAMP_FILE": str(clock),
        "FAKETIME_NO_CACHE": "1",
    }
    env |= {"FAKETIME_DONT_FAKE_MONOTONIC": "1"}
    # one worker: under libfaketime, waiting for processes of a pool is an invalid argument
    with corpus.building(workspace, workers=1, **env) as build:
        for k, jump in enumerate(jumps):
            num_wanted = 4 + 8 * k + rng.randint(0, 6)
            wait_for(
                lambda n=num_wanted: (
                    len(list(workspace.rglob("*.parquet"))) >= n or build.poll() is not None
                ),
                "it builds",
            )
            clock.write_text(jump)
        _, output = build.communicate(timeout=PATIENCE_S)
    assert (build.returncode, without_progress(output)) == (0, "")
    assert_same_end(workspace, whole)
    tally.add("the clock jumps", tried=len(jumps), recovered=len(jumps))


def test_two_builds_at_once(corpus, whole, tally, tmp_path):
    workspace = tmp_path / "workspace"
    with corpus.building(workspace) as first_build, corpus.building(workspace) as second_build:
        outputs = [b.communicate(timeout=PATIENCE_S)[1] for b in (first_build, second_build)]
    assert [b.returncode for b in (first_build, second_build)] == [0, 0], outputs
    assert_same_end(workspace, whole)
    tally.add("two builds at once", tried=1, recovered=1)


HOLD = {
    "lock": "import fcntl; f = open(sys.argv[1], 'a'); fcntl.flock(f, fcntl.LOCK_EX)",
    "catalog": "import sqlite3; c = sqlite3.connect(sys.argv[1], isolation_level=None, timeout=60); "
    "c.execute('BEGIN EXCLUSIVE')",
}


@contextmanager
def held(what: str, path: Path, seconds: float) -> Iterator[int]:
    """Another process holds the lock of commits, or SQLite's own lock of the catalog, for some seconds."""
    code = f"import sys, time; {HOLD[what]}; print('held', flush=True); time.sleep({seconds})"
    process = subprocess.Popen(
        [sys.executable, "-c", code, str(path)], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    try:
        yield process.pid
    finally:
        process.kill()
        process.wait()


@pytest.mark.parametrize("what", ["lock", "catalog"])
def test_a_lock_that_another_holds(what, copy, tally, monkeypatch):
    """It is waited for; after the patience is over the error says who holds it."""
    path = Workspace(copy).lock if what == "lock" else Workspace(copy).catalog
    empty = TABLES["vlm_calls"].empty()
    lake = Lake(Workspace(copy))
    with held(what, path, 1.5):
        lake.upsert("waits", vlm_calls=empty)
    lake.con.close()
    monkeypatch.setattr(place, "LOCK_TIMEOUT_S", 1.0)
    monkeypatch.setattr(connection, "LOCK_TIMEOUT_S", 1.0)
    lake = Lake(Workspace(copy))
    started = TABLES["label_runs"].rows([{"label_run": "x", "annotator": "motion"}])
    with held(what, path, 60) as pid, pytest.raises(LakeError, match=rf"process {pid} \(.*python"):
        lake.upsert("in vain", label_runs=started)
    lake.upsert("now", label_runs=started)
    lake.con.close()
    with closing(sqlite3.connect(copy / "catalog.sqlite")) as catalog:
        assert catalog.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    tally.add("locked by another", tried=2, recovered=2)


def test_a_file_system_without_locks_is_named(copy, monkeypatch):
    def refuse(*_: int) -> None:
        raise OSError(errno.ENOSYS, "Function not implemented")

    lake = Lake(Workspace(copy))
    monkeypatch.setattr(place.fcntl, "flock", refuse)
    with pytest.raises(LakeError, match=r"\.lock: .* its file system does not give"):
        lake.upsert("in vain", vlm_calls=TABLES["vlm_calls"].empty())
    lake.con.close()
