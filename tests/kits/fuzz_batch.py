"""Builds of spoilt datasets in a process of their own, with limits, and what they must not do."""

import ctypes
import faulthandler
import json
import os
import resource
import shutil
import struct
import subprocess
import sys
import warnings
from collections import defaultdict
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
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
from tests.kits.fuzz_bases import write_base
from tests.kits.processes import own_peak_mb
from tests.kits.spoil import TREE, applicable, mutate, write_outside
from warehouse.lake import open_lake

ADDRESS_SPACE_BYTES = 8 << 30
FILE_BYTES = 1 << 28  # that a build may write at most
PEAK_MB = 2000  # that a build of tiny datasets may have in memory
EVERY = 8  # which mutants go through all stages
SILENCE_S, TIMEOUT_S = 240, 1200  # between two words of a build, and all of a batch, on a machine that is busy


@dataclass(frozen=True)
class Outcome:
    """How one dataset ended (built, quarantined, refused, failed), why, and what contradicts the contract."""

    kind: str
    why: list[str]
    usable: int = 0
    faults: list[str] | tuple[()] = ()


# The tests' side


def check_mutants(folder: Path, base: str) -> None:
    """Build a base's spoilt copies, by each mutation once, and one that is not; assert the contract."""
    write_outside(outside := folder / "outside")
    known = write_base(base, untouched := folder / "mutants/untouched")
    done: dict[str, dict[str, str]] = {"untouched": {}}
    for number in range(len(applicable(untouched))):
        root = folder / f"mutants/{base}-{number}"
        shutil.copytree(untouched, root)
        done[root.name] = mutate(root, outside, base, number)
    outcomes = built(folder, [*done], known.fields)
    told = "".join(f"\n{name}: {o}\n    {done[name]}" for name, o in outcomes.items() if o.faults)
    assert not told, told
    assert outcomes["untouched"].usable == known.usable, outcomes["untouched"]
    for name, o in outcomes.items():  # what is in files never makes a dataset unknown
        assert o.kind != "refused" or {m.__name__ for m in TREE} & done[name].keys(), (name, done[name], o)


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
    after = tree(folder)
    changed = {path for path in before.keys() | after.keys() if before.get(path) != after.get(path)}
    # Python and torch try whether TMPDIR can be written to; nothing may stay there
    beside = sorted(path for path in changed if not path.startswith("workspace") and path != "temporary")
    assert not beside, f"written beside the workspace: {beside}"
    found = json.loads(child.stdout)
    assert found["peak_mb"] < PEAK_MB, found["peak_mb"]
    assert found["mutants"].keys() == set(names)
    return {name: Outcome(**o) for name, o in found["mutants"].items()}


def tree(folder: Path) -> dict[str, tuple[int, int, int]]:
    """Kind, size and time of change of everything below a folder, following nothing."""
    found = {}
    for at, folders, names in os.walk(os.fsencode(folder)):
        for name in (*folders, *names):
            s = os.lstat(path := os.path.join(at, name))
            found[os.fsdecode(os.path.relpath(path, os.fsencode(folder)))] = s.st_mode, s.st_size, s.st_mtime_ns
    return found


@contextmanager
def watched(folder: Path) -> Iterator[list[str]]:
    """What is opened, read, changed or made in a folder and those below it, by whichever process."""
    # access, modify, attributes, open, moved from and to, create, delete
    mask = 0x1 | 0x2 | 0x4 | 0x20 | 0x40 | 0x80 | 0x100 | 0x200
    libc = ctypes.CDLL(None, use_errno=True)
    events: list[str] = []
    handle = libc.inotify_init1(os.O_NONBLOCK)
    assert handle >= 0, os.strerror(ctypes.get_errno())
    found = [p for p in (folder, *folder.rglob("*")) if p.is_dir()]
    places = {libc.inotify_add_watch(handle, os.fsencode(p), mask): p for p in found}
    assert min(places) >= 0, os.strerror(ctypes.get_errno())
    try:
        yield events
        try:
            data = os.read(handle, 1 << 20)
        except BlockingIOError:
            return
        while data:
            place, kind, _, length = struct.unpack("iIII", data[:16])
            events.append(f"{places[place] / data[16 : 16 + length].rstrip(bytes(1)).decode()} {kind:#x}")
            data = data[16 + length :]
    finally:
        os.close(handle)


# The process apart


def build(job: Mapping[str, Any]) -> dict[str, Outcome]:
    """Outcomes by name of datasets that are built in one workspace.

    All go through the stages that read them, `episodes` and `frames`, and every eighth through those after them.
    """

    class Reading(DatasetBuild):
        """A build that ends with the stages that read the source."""

    def specs(build: DatasetBuild) -> tuple[StageSpec, ...]:
        return stage_specs(build)[:2] if isinstance(build, Reading) else stage_specs(build)

    outcomes: dict[str, Outcome] = {}
    builds = []
    for name, root in job["mutants"].items():
        config = DatasetConfig(name=name, source=root, **job["fields"])
        _alive()
        try:
            format_of(Source(config))
        except SourceError as e:
            outcomes[name] = Outcome("refused", [str(e)])
            continue
        builds.append((Reading if len(builds) % EVERY else DatasetBuild)(dataset=config))
    workspace = Workspace(Path(job["workspace"]))
    with patch.object(build_loop, "stage_specs", specs), patch.object(chunk_loop, "stage_specs", specs):
        report = run_build(workspace, builds, workers=1, on_plan=_alive, on_stage=_done, on_moment=_alive)
    _alive()
    failed = {f.dataset: f"{f.stage}: {f.trace}" for f in report.failed}
    found = _read(open_lake(workspace))
    labelled = {b.name for b in builds if not isinstance(b, Reading)}
    return outcomes | {b.name: _outcome(found[b.name], failed.get(b.name), b.name in labelled) for b in builds}


def _read(lake: Any) -> dict[str, dict[str, list[Any]]]:
    """Of each dataset its findings, and the episodes that are usable, labelled, or whose numbers are odd. All are asked
    for at once: a query costs ten milliseconds, however little it finds."""
    numbers = (
        "isfinite(visual_change) AND isfinite(timestamp_s) AND isfinite(coalesce(speed, 0)) AND coalesce(gripper, 0)"
    )
    found: dict[str, dict[str, list[Any]]] = defaultdict(lambda: defaultdict(list))
    for what, sql in (
        ("findings", "(reason, severity, episode_index, detail) FROM findings ORDER BY ALL"),
        ("usable", "episode_index FROM episodes WHERE status = 'ok'"),
        ("labelled", "episode_index FROM progress GROUP BY ALL"),
        ("odd", f"episode_index FROM frames WHERE NOT ({numbers} BETWEEN 0 AND 1) GROUP BY ALL"),
        ("odd", "episode_index FROM progress WHERE NOT (progress BETWEEN 0 AND 1) GROUP BY ALL"),
        ("odd", "episode_index FROM episodes WHERE NOT (fps > 0 AND isfinite(fps))"),
    ):
        for dataset, value in lake.rows(f"SELECT dataset, {sql}"):
            found[dataset][what].append(tuple(value.values()) if isinstance(value, dict) else value)
    return found


def _outcome(built: dict[str, list[Any]], failure: str | None, is_labelled: bool) -> Outcome:
    if failure:
        return Outcome("failed", [failure], 0, ["it failed"])
    findings, usable = built["findings"], built["usable"]
    faults = [f"episode {e} is usable and has no label" for e in usable if is_labelled and e not in built["labelled"]]
    faults += [f"unknown reason {reason}" for reason, *_ in findings if reason not in REASONS]
    faults += [f"numbers of episode {e} are odd" for e in dict.fromkeys(built["odd"])]
    if not usable and not any(severity == "unusable" for _, severity, *_ in findings):
        faults.append("no usable episode, and no reason")
    why = [f"{reason} ({severity}) {episode}: {detail[:200]}" for reason, severity, episode, detail in findings]
    return Outcome("built" if usable else "quarantined", why, len(usable), faults)


def _alive(*_: object) -> None:
    """Called at each word of the build; where it is silent for too long, the process ends and says where it hangs."""
    faulthandler.dump_traceback_later(SILENCE_S, exit=True)


def _done(report: Any) -> None:
    print(report.run.dataset, report.run.stage, f"{report.run.duration_s:.1f} s", file=sys.stderr)
    _alive()


if __name__ == "__main__":
    job = json.load(sys.stdin)
    faulthandler.enable()
    for limit, value in ((resource.RLIMIT_AS, ADDRESS_SPACE_BYTES), (resource.RLIMIT_FSIZE, FILE_BYTES)):
        resource.setrlimit(limit, (value, value))
    warnings.simplefilter("ignore")
    outcomes = {name: o.__dict__ for name, o in build(job).items()}
    print(json.dumps({"mutants": outcomes, "peak_mb": own_peak_mb()}))
