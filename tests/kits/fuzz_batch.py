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
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
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
from pipeline.stages import stage_specs
from tests.kits.processes import own_peak_mb
from warehouse.lake import open_lake

ADDRESS_SPACE_BYTES = 8 << 30
FILE_BYTES = 1 << 28  # that a build may write at most
PEAK_MB = 2000  # that a build of tiny datasets may have in memory
EVERY = 1
ALL_EVENTS, CHANGES = 0xFFF, 0x3C6  # of inotify; contents, attributes, what is moved, made or deleted
SILENCE_S, TIMEOUT_S = 240, 1200  # between two words of a build, and all of a batch, on a machine that is busy


@dataclass
class Outcome:
    """How one dataset ended (built, quarantined, refused), why, and what contradicts the contract."""

    kind: str = "quarantined"
    why: list[str] = field(default_factory=list)
    usable: int = 0
    faults: list[str] = field(default_factory=list)


def built(folder: Path, names: list[str], fields: Mapping[str, Any] | None = None) -> dict[str, Outcome]:
    """Outcomes of a folder's `mutants` by name. Asserts that nothing beside the workspace was touched."""
    for name in ("workspace", "empty", "temporary", "torch"):
        (folder / name).mkdir()
    empty = folder / "empty"
    job = {"workspace": str(folder / "workspace"), "fields": dict(fields or {})}
    job["mutants"] = {name: str(folder / "mutants" / name) for name in names}
    apart = {"HOME": str(empty), "TMPDIR": str(folder / "temporary"), "PYTHONPATH": str(ROOT)}
    # Who imports torchvision makes this folder, by default in TMPDIR
    apart["TORCHINDUCTOR_CACHE_DIR"] = str(folder / "torch")
    with watched(folder) as events:
        child = subprocess.run(
            [sys.executable, "-m", "tests.kits.fuzz_batch"], input=json.dumps(job), cwd=empty, env=os.environ | apart,
            capture_output=True, text=True, timeout=TIMEOUT_S, check=False,
        )  # fmt: skip
    assert child.returncode == 0, f"the build died ({child.returncode})\n{child.stdout[-500:]}\n{child.stderr[-6000:]}"
    assert events == [], f"files beside the workspace were touched: {events}"
    # Python and torch try whether TMPDIR can be written to; nothing may stay there
    assert os.listdir(folder / "temporary") == []
    found = json.loads(child.stdout)
    assert found["peak_mb"] < PEAK_MB, found["peak_mb"]
    assert found["mutants"].keys() == set(names)
    return {name: Outcome(**o) for name, o in found["mutants"].items()}


@contextmanager
def watched(folder: Path) -> Iterator[list[str]]:
    """What is changed or made beside a folder's workspace, and, in `outside`, also opened or read, by any process."""
    libc, events, data, places = ctypes.CDLL(None, use_errno=True), [], b"", {}
    handle = libc.inotify_init1(os.O_NONBLOCK)
    for at in [Path(at) for at, *_ in os.walk(folder)]:  # all of them first: to list a folder is an event of its parent
        top = at.relative_to(folder).parts[:1]
        if top not in (("workspace",), ("temporary",), ("torch",)):
            kinds = ALL_EVENTS if top == ("outside",) else CHANGES
            places[libc.inotify_add_watch(handle, os.fsencode(at), kinds)] = at
    assert min(handle, *places) >= 0, os.strerror(ctypes.get_errno())
    yield events
    with suppress(BlockingIOError):
        data = os.read(handle, 1 << 20)
    os.close(handle)
    while data:
        place, kind, _, length = struct.unpack("iIII", data[:16])
        events.append(f"{places[place]}/{os.fsdecode(data[16 : 16 + length].rstrip(bytes(1)))} {kind:#x}")
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

    def alive(*_: object) -> None:
        """At each word of the build; where it is silent for too long, the process ends and says where it hangs."""
        faulthandler.dump_traceback_later(SILENCE_S, exit=True)

    outcomes, builds = {name: Outcome() for name in job["mutants"]}, []
    for name, root in job["mutants"].items():
        alive()
        builds.append(DatasetBuild(dataset=DatasetConfig(name=name, source=root, **job["fields"])))
        try:
            format_of(Source(builds[-1].dataset))
        except SourceError as e:
            outcomes[builds.pop().name] = Outcome("refused", [str(e)])
    workspace, labelled = Workspace(Path(job["workspace"])), builds[::EVERY]
    run = partial(run_build, workspace, workers=1, on_plan=alive, on_stage=alive, on_moment=alive)
    reading = {"stage_specs": lambda build: stage_specs(build)[:2]}
    with patch.multiple(build_loop, **reading), patch.multiple(chunk_loop, **reading):
        failed = run(builds).failed
    for f in [*failed, *run(labelled).failed]:
        outcomes[f.dataset].faults.append(f"{f.stage} failed: {f.trace}")
    alive()
    lake = open_lake(workspace)
    known = {"reasons": [*REASONS], "labelled": [b.name for b in labelled], "datasets": [b.name for b in builds]}
    for name, fault in lake.con.execute(FAULTS, known).fetchall():
        outcomes[name].faults.append(fault)
    for name, *why in lake.rows("SELECT dataset, reason, severity, episode_index, detail FROM findings ORDER BY ALL"):
        outcomes[name].why.append(" ".join(str(part)[:200] for part in why))
    for name, usable in lake.rows("SELECT dataset, count(*) FROM episodes WHERE status = 'ok' GROUP BY ALL"):
        outcomes[name].kind, outcomes[name].usable = "built", usable
    return outcomes


if __name__ == "__main__":
    job = json.load(sys.stdin)
    faulthandler.enable()
    for limit, value in ((resource.RLIMIT_AS, ADDRESS_SPACE_BYTES), (resource.RLIMIT_FSIZE, FILE_BYTES)):
        resource.setrlimit(limit, (value, value))
    warnings.simplefilter("ignore")
    outcomes = {name: o.__dict__ for name, o in build(job).items()}
    print(json.dumps({"mutants": outcomes, "peak_mb": own_peak_mb()}))
