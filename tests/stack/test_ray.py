"""A real Ray head on this machine takes a job, streams what it reports, tells why it failed, and ends it."""

import re
import time
from pathlib import Path

import dagster as dg
import pytest

from assets.lib.launch.ray import RayLauncher
from tests.kits.launch_kit import alive, failure, interpreter, interrupt_when_up, materialize

pytestmark = pytest.mark.stack


def test_a_job_on_a_real_head(address: str, tmp_path: Path) -> None:
    launcher = RayLauncher(address=address, python=interpreter(tmp_path))
    with dg.DagsterInstance.ephemeral() as instance:
        result = materialize(launcher, tmp_path, "well", instance)
        assert result.success
        told = [r.message for r in instance.all_logs(result.run_id)]
    (made,) = result.asset_materializations_for_node("model")
    assert made.metadata["final_loss"].value == 0.5
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
    assert event.step_failure_data.error.cls_name == "DagsterExecutionInterruptedError"
    thread.join()
    limit = time.monotonic() + 30
    while alive(pids) and time.monotonic() < limit:
        time.sleep(0.05)
    assert alive(pids) == []
