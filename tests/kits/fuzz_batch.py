"""Builds of spoilt datasets in a process of their own, with limits, and what they must not do."""

import ctypes
import faulthandler
import json
import os
import resource
import struct
import subprocess
import sys
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from unittest.mock import patch

from core.paths import ROOT, Workspace
from ingest.reasons import REASONS
from ingest.registry import DatasetConfig
from ingest.source import format_of
from ingest.sources.files import Source
from ingest.sources.types import SourceError
from pipeline import build as build_loop
from pipeline import chunk as chunk_loop
from pipeline.build import run_build
from pipeline.config import DatasetBuild
from pipeline.stage import StageSpec
from pipeline.stages import stage_specs
from tests.kits.processes import own_peak_mb
from warehouse.lake import open_lake

ADDRESS_SPACE_BYTES = 8 << 30
FILE_BYTES = 1 << 28  # that a build may write at most
PEAK_MB = 2000  # that a build of tiny datasets may have in memory
EVERY = 8  # which datasets go through all stages
SILENCE_S, TIMEOUT_S = 240, 1200  # between two words of a build, and all of a batch, on a machine that is busy


@dataclass
class Outcome:
    """How one dataset ended (built, quarantined, refused, failed), why, and what contradicts the contract."""

    kind: str = "quarantined"
    why: list[str] = field(default_factory=list)
    usable: int = 0
    faults: list[str] = field(default_factory=list)


def built(folder: Path, names: list[str], fields: Mapping[str, Any] | None = None) -> dict[str, Outcome]:
    """Outcomes of a folder's `mutants` by name. Asserts that nothing beside the workspace was touched."""
    for name in ("workspace", "empty", "temporary", "torch"):
        (folder / name).mkdir()
    empty, before = folder / "empty", tree(folder)
    job = {"workspace": str(folder / "workspace"), "fields": dict(fields or {})}
    job["mutants"] = {name: str(folder / "mutants" / name) for name in names}
    apart = {"HOME": str(empty), "TMPDIR": str(folder / "temporary"), "PYTHONPATH": str(ROOT)}
    # Who imports torchvision makes this folder, by default in TMPDIR
    apart["TORCHINDUCTOR_CACHE_DIR"] = str(folder / "torch")
    with watched(folder / "outside") as events:
        child = subprocess.run(
            [sys.executable, "-m", "tests.kits.fuzz_batch"], input=json.dumps(job), cwd=empty, env=os.environ | apart,
            capture_output=True, text=True, timeout=TIMEOUT_S, check=False,
        )  # fmt: skip
    assert child.returncode == 0, f"the build died ({child.returncode})\n{child.stdout[-500:]}\n{child.stderr[-6000:]}"
    assert events == [], f"files outside were touched: {events}"
    # Python and torch try whether TMPDIR can be written to; nothing may stay there
    changed = {path.split("/")[0] for path, _ in before ^ tree(folder)} - {"workspace", "temporary"}
    assert not changed, f"written beside the workspace: {changed}"
    found = json.loads(child.stdout)
    assert found["peak_mb"] < PEAK_MB, found["peak_mb"]
    assert found["mutants"].keys() == set(names)
    return {name: Outcome(**o) for name, o in found["mutants"].items()}


def tree(folder: Path) -> set[tuple[str, tuple[int, int, int]]]:
    """Kind, size and time of change of everything below a folder, following nothing."""
    found = set()
    for at, folders, names in os.walk(os.fsencode(folder)):
        for path in (os.path.join(at, name) for name in (*folders, *names)):
            s = os.lstat(path)
            found.add((os.fsdecode(os.path.relpath(path, os.fsencode(folder))), (s.st_mode, s.st_size, s.st_mtime_ns)))
    return found


@contextmanager
def watched(folder: Path) -> Iterator[list[str]]:
    """What is opened, read, changed or made in a folder and those below it, by whichever process."""
    libc, events = ctypes.CDLL(None, use_errno=True), []
    handle = libc.inotify_init1(os.O_NONBLOCK)
    # access, modify, attributes, open, moved from and to, create, delete
    mask = 0x1 | 0x2 | 0x4 | 0x20 | 0x40 | 0x80 | 0x100 | 0x200
    found = [p for p in (folder, *folder.rglob("*")) if p.is_dir()]
    places = {libc.inotify_add_watch(handle, os.fsencode(p), mask): p for p in found}
    assert min(handle, *places) >= 0, os.strerror(ctypes.get_errno())
    yield events
    try:
        data = os.read(handle, 1 << 20)
    except BlockingIOError:
        data = b""
    os.close(handle)
    while data:
        place, kind, _, length = struct.unpack("iIII", data[:16])
        events.append(f"{places[place] / data[16 : 16 + length].rstrip(bytes(1)).decode()} {kind:#x}")
        data = data[16 + length :]


# The process apart

NUMBERS = "isfinite(visual_change) AND isfinite(timestamp_s) AND isfinite(coalesce(speed, 0)) AND coalesce(gripper, 0)"
FAULTS = f"""
SELECT dataset, 'unknown reason ' || reason FROM findings WHERE NOT list_contains($reasons, reason)
UNION SELECT dataset, 'numbers of episode ' || episode_index || ' are odd' FROM (
  SELECT dataset, episode_index FROM frames WHERE NOT ({NUMBERS} BETWEEN 0 AND 1)
  UNION SELECT dataset, episode_index FROM progress WHERE NOT (progress BETWEEN 0 AND 1)
  UNION SELECT dataset, episode_index FROM episodes WHERE NOT (fps > 0 AND isfinite(fps)))
UNION SELECT dataset, 'episode ' || episode_index || ' is usable and has no label'
FROM episodes ANTI JOIN progress USING (dataset, episode_index)
WHERE status = 'ok' AND list_contains($labelled, dataset)
UNION SELECT dataset, 'no usable episode, and no reason' FROM unnest($datasets) t(dataset)
WHERE dataset NOT IN (SELECT dataset FROM findings WHERE severity = 'unusable'
                      UNION ALL SELECT dataset FROM episodes WHERE status = 'ok')
"""


def build(job: Mapping[str, Any]) -> dict[str, Outcome]:
    """Outcomes by name of datasets that are built in one workspace.

    All go through the stages that read them, `episodes` and `frames`, and every eighth through those after them.
    """

    class Reading(DatasetBuild):
        """A build that ends with the stages that read the source."""

    def specs(build: DatasetBuild) -> tuple[StageSpec, ...]:
        return stage_specs(build)[:2] if isinstance(build, Reading) else stage_specs(build)

    def alive(*_: object) -> None:
        """At each word of the build; where it is silent for too long, the process ends and says where it hangs."""
        faulthandler.dump_traceback_later(SILENCE_S, exit=True)

    outcomes: dict[str, Outcome] = {}
    builds = []
    for name, root in job["mutants"].items():
        config = DatasetConfig(name=name, source=root, **job["fields"])
        alive()
        try:
            format_of(Source(config))
        except SourceError as e:
            outcomes[name] = Outcome("refused", [str(e)])
            continue
        outcomes[name] = Outcome()
        builds.append((Reading if len(builds) % EVERY else DatasetBuild)(dataset=config))
    workspace = Workspace(Path(job["workspace"]))
    with patch.object(build_loop, "stage_specs", specs), patch.object(chunk_loop, "stage_specs", specs):
        report = run_build(workspace, builds, workers=1, on_plan=alive, on_stage=alive, on_moment=alive)
    alive()
    lake, names = open_lake(workspace), [b.name for b in builds]
    labelled = [b.name for b in builds if not isinstance(b, Reading)]
    known = {"reasons": [*REASONS], "labelled": labelled, "datasets": names}
    for name, fault in lake.con.execute(FAULTS, known).fetchall():
        outcomes[name].faults.append(fault)
    for name, *why in lake.rows("SELECT dataset, reason, severity, episode_index, detail FROM findings ORDER BY ALL"):
        outcomes[name].why.append(" ".join(str(part)[:200] for part in why))
    for name, usable in lake.rows("SELECT dataset, count(*) FROM episodes WHERE status = 'ok' GROUP BY ALL"):
        outcomes[name].kind, outcomes[name].usable = "built", usable
    for f in report.failed:
        outcomes[f.dataset] = Outcome("failed", [f"{f.stage}: {f.trace}"], 0, ["it failed"])
    return outcomes


if __name__ == "__main__":
    job = json.load(sys.stdin)
    faulthandler.enable()
    for limit, value in ((resource.RLIMIT_AS, ADDRESS_SPACE_BYTES), (resource.RLIMIT_FSIZE, FILE_BYTES)):
        resource.setrlimit(limit, (value, value))
    warnings.simplefilter("ignore")
    outcomes = {name: o.__dict__ for name, o in build(job).items()}
    print(json.dumps({"mutants": outcomes, "peak_mb": own_peak_mb()}))
