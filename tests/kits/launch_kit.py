"""For tests of launchers: an asset whose job stands in for training, and how to cancel it."""

import json
import os
import re
import signal
import sys
import threading
import time
from pathlib import Path

import dagster as dg
import pytest

from assets.lib.launch.job import Job, job_name
from assets.lib.launch.run import AnyLauncher, launch
from assets.lib.programs import FILE
from core.paths import ROOT
from tests.kits.patience import PATIENCE_S
from tests.kits.processes import alive

CHILD = Path(__file__).with_name("reporting_job.py")


def interpreter(folder: Path) -> str:
    """An interpreter that runs a job in small, whatever it is told to run."""
    path = folder / "python"
    path.write_text(f'#!/bin/bash\nexec {sys.executable} {CHILD} "$@"\n')
    path.chmod(0o755)
    return str(path)


def group_interpreter(folder: Path) -> str:
    """An interpreter for whom the module proccorpus is the small stand-in for training."""
    modules = folder / "modules"
    modules.mkdir()
    (modules / "proccorpus.py").symlink_to(CHILD)
    path = folder / "python"
    path.write_text(
        f'#!/bin/bash\ncd {modules}\nPYTHONPATH={modules}:{ROOT} exec {sys.executable} "$@"\n'
    )
    path.chmod(0o755)
    return str(path)


def allow_programs(monkeypatch: pytest.MonkeyPatch, file: Path, **programs: list[str]) -> None:
    """The operator's file: what a run's configuration may name, by field."""
    file.write_text(
        "".join(f"{name} = {json.dumps(allowed)}\n" for name, allowed in programs.items())
    )
    monkeypatch.setenv(FILE, str(file))


def job_of(folder: Path, recipe: str) -> Job:
    return Job(
        job_name("train", recipe), ("train", "--recipe", recipe), folder, folder / "jobs" / "it's 1"
    )


def materialize(
    launcher: AnyLauncher, folder: Path, recipe: str, instance: dg.DagsterInstance | None = None
) -> dg.ExecuteInProcessResult:
    @dg.asset
    def model(context: dg.AssetExecutionContext) -> dg.MaterializeResult:
        return launch(context, launcher, job_of(folder, recipe))

    return dg.materialize([model], raise_on_error=False, instance=instance)


def assert_well(launcher: AnyLauncher, folder: Path) -> tuple[dg.AssetMaterialization, list[str]]:
    """What the job `well` reports is the materialisation, which is returned."""
    with dg.DagsterInstance.ephemeral() as instance:
        result = materialize(launcher, folder, "well", instance)
        assert result.success
        messages = [r.message for r in instance.all_logs(result.run_id)]
    (materialization,) = result.asset_materializations_for_node("model")
    assert materialization.metadata["final_loss"].value == 0.5
    assert (materialization.tags or {})["dagster/data_version"] == "v1"
    assert "step 1 of 2: loss 0.7" in messages
    return materialization, messages


def failure(result: dg.ExecuteInProcessResult) -> tuple[str, str]:
    """What the failed step says, and its job's last lines."""
    (event,) = [e for e in result.all_events if e.is_step_failure]
    data = event.step_failure_data.user_failure_data
    assert data
    lines = data.metadata.get("last_lines")
    return data.description or "", str(lines.value) if lines else ""


def assert_ends_with_its_run(launcher: AnyLauncher, folder: Path, log: Path) -> None:
    """Cancel the run as Dagster's run worker is cancelled, as soon as the job has children: they
    end."""
    pids: list[int] = []

    def wait() -> None:
        limit = time.monotonic() + PATIENCE_S
        while time.monotonic() < limit:
            # Processes of several nodes write to one file: only a whole line counts
            if log.exists():
                match = re.search(r"^pids (\d+) (\d+)$", log.read_text(), re.MULTILINE)
            else:
                match = None
            if match:
                pids.extend(int(pid) for pid in match.groups())
                os.kill(os.getpid(), signal.SIGINT)
                return
            time.sleep(0.02)

    thread = threading.Thread(target=wait, daemon=True)
    thread.start()
    result = materialize(launcher, folder, "hangs")
    (event,) = [e for e in result.all_events if e.is_step_failure]
    error = event.step_failure_data.error
    assert error
    assert error.cls_name == "DagsterExecutionInterruptedError"
    thread.join()
    assert len(pids) == 2
    limit = time.monotonic() + PATIENCE_S
    while alive(pids) and time.monotonic() < limit:
        time.sleep(0.05)
    assert alive(pids) == []
