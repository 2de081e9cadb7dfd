"""SIGKILL on Ray: of the process that does a step of Dagster's run, and of the Ray worker that watches over it."""

import os
import random
import signal
from contextlib import suppress
from pathlib import Path

from core.paths import Workspace
from pipeline.build import run_build
from pipeline.config import load_config
from tests.kits.cli_kit import write_config
from tests.kits.fault_kit import (
    PATIENCE_S,
    Repeats,
    Whole,
    assert_same_and_once,
    errors,
    kill_session,
    wait_for,
)
from tests.kits.ray_kit import StepsOnRay, ray_head
from tests.kits.tiny_lerobot import make_dataset

STAGES = "frames,demonstrations,segments,progress,reasoning,samples,shards"
SETTINGS = 'vlm = {{model = "stand-in", endpoints = ["{url}"], reason_interval_s = 0.5}}'
STEP = "a process of a step on Ray killed"
WORKER = "a Ray worker killed"


def processes(workspace: Path, fault: str) -> list[int]:
    """Those of the step that is under way; or the Ray workers that watch over them, which are their parents."""
    pids = []
    for folder in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            is_own = f"PROCCORPUS_WORKSPACE={workspace}".encode() in (
                folder / "environ"
            ).read_bytes().split(b"\0")
            if is_own and b"execute_step" in (folder / "cmdline").read_bytes():
                pids.append(int(folder.name))
    if fault == STEP:
        return pids
    workers = []
    for pid in pids:
        while pid > 1:
            with suppress(OSError):
                if b"ray::" in Path(f"/proc/{pid}/cmdline").read_bytes():
                    workers.append(pid)
            pid = parent(pid)
    return workers


def parent(pid: int) -> int:
    with suppress(OSError):
        return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
    return 0


def test_steps_on_ray_are_killed(model, tally, server_kills, seed, tmp_path):
    """One for each chunk. Dagster tries a lost step again after a while."""
    rng = random.Random(seed + 4)
    repeats = Repeats()
    source = make_dataset(tmp_path / "tiny", [rng.randint(14, 26) for _ in range(2 * server_kills)])
    config = write_config(tmp_path, source, SETTINGS.format(url=model.url))
    registry = tmp_path / "registry" / "tiny.yaml"
    registry.write_text(registry.read_text() + "annotator: vlm\n")
    local_space = Workspace(tmp_path / "here")
    ray_space = Workspace(tmp_path / "there")
    assert not run_build(local_space, load_config(config), workers=1).failed

    with ray_head() as address:
        steps = StepsOnRay(address, tmp_path / "home", ray_space.root, config)
        with steps.instance() as instance:
            instance.add_dynamic_partitions("datasets", ["tiny"])
            steps.materialize("episodes", "tiny")
            chunks = sorted(instance.get_dynamic_partitions("chunks"))
        assert len(chunks) == server_kills
        for k, chunk in enumerate(chunks):
            fault = (STEP, WORKER)[k % 2]
            num_wanted = written(ray_space.root) + rng.randint(2, 12)
            run = steps.materializing(STAGES, chunk)
            try:
                wait_for(
                    lambda n=num_wanted, r=run: (
                        written(ray_space.root) >= n or r.poll() is not None
                    ),
                    "files are written",
                )
                wait_for(
                    lambda f=fault, r=run: processes(ray_space.root, f) or r.poll() is not None,
                    "a step runs",
                )
                assert run.poll() is None, run.communicate()
                for pid in processes(ray_space.root, fault):
                    with suppress(ProcessLookupError):
                        os.kill(pid, signal.SIGKILL)
                tally.add(fault, tried=1)
                assert errors(ray_space.root) == []
                repeats.note(ray_space.root)
                run.communicate(timeout=PATIENCE_S)
            finally:
                kill_session(run.pid)
            if run.returncode:
                steps.materialize(STAGES, chunk)
            assert errors(ray_space.root) == []
            tally.add(fault, recovered=1)
    assert_same_and_once(ray_space.root, Whole.of(local_space.root), repeats, tally, STEP)


def written(workspace: Path) -> int:
    """Replies, rows and shards so far."""
    return sum(1 for p in workspace.rglob("*") if p.suffix in (".sqlite", ".parquet", ".tar"))
