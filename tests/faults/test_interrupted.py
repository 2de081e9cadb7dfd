"""Builds stopped at chosen moments: by Ctrl-C to one or all processes, and by the death of the parent alone."""

import os
import signal
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from core.files import sha256_file
from core.paths import Workspace
from pipeline.config import load_config
from tests.kits.cli_kit import (
    INTERRUPTED,
    Result,
    built_in_process,
    ok,
    proccorpus,
    rows,
    write_config,
)
from tests.kits.fault_kit import Corpus, living, wait_for
from tests.kits.patience import PATIENCE_S
from tests.kits.tiny_lerobot import LENGTHS, make_dataset

Moment = Callable[[Path], bool]


@dataclass(frozen=True)
class Plan(Corpus):
    """Four chunks of one episode each, and the digest of their uninterrupted build."""

    digest: dict[str, str]


@pytest.fixture(scope="module")
def plan(tmp_path_factory) -> Plan:
    folder = tmp_path_factory.mktemp("plan")
    config = write_config(folder, make_dataset(folder / "source", LENGTHS[:4]), chunk_size=1)
    return Plan(config, built_in_process(load_config(config), folder / "reference"))


def written(table: str, count: int) -> Moment:
    """The lake's folder has got so many files of a table: the commit that lists the last one is close.

    Only for tables with more rows per chunk than the catalog takes in itself (ten).
    """
    return lambda workspace: (
        len(list((workspace / "lake/main" / table).rglob("*.parquet"))) >= count
    )


def stop(process: "subprocess.Popen[str]", signal_number: int, target: str) -> Result:
    (os.killpg if target == "group" else os.kill)(process.pid, signal_number)
    out, err = process.communicate(timeout=PATIENCE_S)
    return Result(process.returncode, out, err)


def assert_interrupted(result: Result, process: "subprocess.Popen[str]") -> None:
    assert result.code == INTERRUPTED
    *progress, last = result.err.splitlines()
    assert last.startswith("interrupted")
    assert all(" done, " in line for line in progress), result.err
    wait_for(lambda: not living(process.pid), "all processes of the build have ended", 20)


def assert_whole(workspace: Path) -> None:
    """What the lake lists is there in full, and every partition in it was published by a stage that finished."""
    space = Workspace(workspace)
    for split, shard, sha256 in rows(workspace, "SELECT split, shard, sha256 FROM shards"):
        assert sha256_file(space.shard(split, shard)) == sha256
    for (sha256,) in rows(workspace, "SELECT DISTINCT sha256 FROM keyframes"):
        assert sha256_file(space.keyframe(sha256)) == sha256
    for table in ("frames", "segments", "progress", "samples", "shards"):
        finished = set(rows(workspace, f"SELECT chunk FROM stage_runs WHERE stage = '{table}'"))
        assert set(rows(workspace, f"SELECT DISTINCT chunk FROM {table}")) == finished
    lengths = rows(
        workspace,
        "SELECT e.num_frames, count(*) FROM active_progress p JOIN episodes e USING (dataset, episode_index) "
        "GROUP BY e.episode_index, e.num_frames",
    )
    assert all(expected == length_found for expected, length_found in lengths)


def finished_stages(workspace: Path) -> int:
    return rows(workspace, "SELECT count(*) FROM stage_runs WHERE stage <> 'episodes'")[0][0]


@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize("to", ["parent", "group"])
def test_ctrl_c_leaves_a_workspace_that_goes_on(plan, workers, to, tmp_path):
    workspace = tmp_path / "workspace"
    with plan.building(workspace, workers) as process:
        wait_for(lambda: written("progress", 1)(workspace), "the first chunk is labelled")
        assert_interrupted(stop(process, signal.SIGINT, to), process)
    assert 0 < finished_stages(workspace) < 20
    assert_whole(workspace)
    status = ok(proccorpus("status", "--format", "json", cwd=tmp_path, workspace=workspace)).json
    assert [(r["dataset"], r["episodes"]) for r in status["datasets"]] == [("tiny", 4)]
    if (workers, to) == (2, "group"):  # as in a terminal
        ok(proccorpus("build", "--config", plan.config, cwd=tmp_path, workspace=workspace))
    assert built_in_process(load_config(plan.config), workspace) == plan.digest


def test_ctrl_c_while_the_lake_is_made(plan, tmp_path):
    workspace = tmp_path / "workspace"
    with plan.building(workspace, workers=1) as process:
        wait_for(lambda: (workspace / "catalog.sqlite").exists(), "there is a catalog")
        assert_interrupted(stop(process, signal.SIGINT, "parent"), process)
    assert built_in_process(load_config(plan.config), workspace) == plan.digest


def test_ctrl_c_while_workers_start(plan, tmp_path):
    workspace = tmp_path / "workspace"
    with plan.building(workspace, workers=2) as process:
        wait_for(
            lambda: len(living(process.pid)) > 2,
            "a worker was started, beside the tracker of resources",
        )
        assert_interrupted(stop(process, signal.SIGINT, "group"), process)
    assert finished_stages(workspace) == 0
    assert built_in_process(load_config(plan.config), workspace) == plan.digest


def test_workers_do_not_outlive_a_killed_build(plan, tmp_path):
    """The parent alone is killed, as the kernel does when memory runs out."""
    workspace = tmp_path / "workspace"
    with plan.building(workspace, workers=2) as process:
        wait_for(lambda: written("frames", 1)(workspace), "a worker works")
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        wait_for(lambda: not living(process.pid), "the workers have ended", 10)
