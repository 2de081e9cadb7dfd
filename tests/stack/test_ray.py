"""A real Ray head on this machine takes a job, streams what it reports, tells why it failed, and ends it."""

import re
import time
from pathlib import Path

import dagster as dg
import pytest

from assets.lib.launch.ray import RayLauncher
from tests.kits.launch_kit import (
    allow_programs,
    failure,
    group_interpreter,
    interpreter,
    interrupt_when_up,
    materialize,
)
from tests.kits.processes import alive

pytestmark = pytest.mark.stack


@pytest.fixture(autouse=True)
def allowed_programs(tmp_path_factory: pytest.TempPathFactory, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path_factory.mktemp("operator") / "programs.toml"
    allow_programs(monkeypatch, file, python=[str(tmp_path / "python"), str(tmp_path / "noted")])


def test_a_job_on_a_real_head(address: str, tmp_path: Path) -> None:
    launcher = RayLauncher(address=address, python=interpreter(tmp_path))
    with dg.DagsterInstance.ephemeral() as instance:
        result = materialize(launcher, tmp_path, "well", instance)
        assert result.success
        told = [r.message for r in instance.all_logs(result.run_id)]
    (made,) = result.asset_materializations_for_node("model")
    assert made.metadata["final_loss"].value == 0.5
    assert made.tags
    assert made.tags["dagster/data_version"] == "v1"
    assert "step 1 of 2: loss 0.7" in told


def test_a_failed_job_tells_its_error_and_last_lines(address: str, tmp_path: Path) -> None:
    launcher = RayLauncher(address=address, python=interpreter(tmp_path))
    described, lines = failure(materialize(launcher, tmp_path, "fails"))
    assert re.fullmatch(
        r"ray job train-fails-\w{8} failed: the loss is nan at step 1: lower lr in the recipe", described
    )
    assert lines.splitlines()[-2:] == ["error: the loss is nan at step 1: lower lr in the recipe", "```"]
    assert "__dagster_pipes_version" not in lines


def test_cancelling_the_run_ends_the_job(address: str, tmp_path: Path) -> None:
    log, pids = tmp_path / "told", []
    noted = tmp_path / "noted"  # what the job prints is Ray's; it is written to a file, too
    noted.write_text(f'#!/bin/bash\n{interpreter(tmp_path)} "$@" | tee {log}\n')
    noted.chmod(0o755)
    thread = interrupt_when_up(log, pids)
    result = materialize(RayLauncher(address=address, python=str(noted)), tmp_path, "hangs")
    (event,) = [e for e in result.all_events if e.is_step_failure]
    error = event.step_failure_data.error
    assert error
    assert error.cls_name == "DagsterExecutionInterruptedError"
    thread.join()
    limit = time.monotonic() + 60
    while alive(pids) and time.monotonic() < limit:
        time.sleep(0.05)
    assert alive(pids) == []


# Several machines


def test_two_nodes_are_one_group_of_processes(address: str, tmp_path: Path) -> None:
    launcher = RayLauncher(address=address, nodes=2, python=group_interpreter(tmp_path))
    result = materialize(launcher, tmp_path, "together")
    assert result.success
    (made,) = result.asset_materializations_for_node("model")
    assert made.metadata["sum"].value == 1 + 2


def test_two_nodes_fail_with_the_error_of_one(address: str, tmp_path: Path) -> None:
    launcher = RayLauncher(address=address, nodes=2, python=group_interpreter(tmp_path))
    described, _ = failure(materialize(launcher, tmp_path, "fails"))
    assert described.endswith("failed: the loss is nan at step 1: lower lr in the recipe")


def test_cancelling_ends_the_processes_of_both_nodes(address: str, tmp_path: Path) -> None:
    log, pids = tmp_path / "told", []
    noted = tmp_path / "noted"
    noted.write_text(f'#!/bin/bash\n{group_interpreter(tmp_path)} "$@" | tee -a {log}\n')
    noted.chmod(0o755)
    thread = interrupt_when_up(log, pids)
    materialize(RayLauncher(address=address, nodes=2, python=str(noted)), tmp_path, "hangs")
    thread.join()
    assert pids
    limit = time.monotonic() + 60
    while alive(pids) and time.monotonic() < limit:
        time.sleep(0.05)
    assert alive(pids) == []
