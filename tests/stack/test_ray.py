"""A real Ray head on this machine takes a job, streams what it reports, tells why it failed, and ends it."""

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryDirectory

import dagster as dg
import httpx
import pytest
from servers import free_port

sys.path.insert(0, str(Path(__file__).parents[1] / "assets"))

from launch_kit import alive, failure, interpreter, interrupt_when_up, materialize

from assets.launch.ray import RayLauncher

pytestmark = pytest.mark.stack
READY_S = 180.0


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    """The dashboard's address of a head of our own."""
    ports = [free_port() for _ in range(6)]
    with TemporaryDirectory(prefix="ray-", dir="/tmp") as folder:  # sockets' paths have to be short
        options = {"--port": ports[0], "--dashboard-port": ports[1], "--ray-client-server-port": ports[2]}
        # given: the server for clients would ask for it, and end the head where a crowded machine is slow to answer
        options |= {"--runtime-env-agent-port": ports[3]}
        # what takes jobs on a node; its usual port may be another head's
        options |= {"--dashboard-agent-listen-port": ports[4], "--dashboard-agent-grpc-port": ports[5]}
        options |= {"--num-cpus": 2, "--include-dashboard": "true", "--temp-dir": folder}
        options |= {"--node-ip-address": "127.0.0.1", "--dashboard-host": "127.0.0.1"}
        given = [f"{k}={v}" for k, v in options.items()]
        command = [Path(sys.executable).parent / "ray", "start", "--head", "--block", "--disable-usage-stats", *given]
        path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"  # where steps find `dagster`
        quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        head = subprocess.Popen(command, env=os.environ | {"PATH": path}, start_new_session=True, **quiet)
        url = f"http://127.0.0.1:{ports[1]}"
        try:
            limit = time.monotonic() + READY_S
            while not (
                answers(f"{url}/api/jobs/") and answers(f"http://127.0.0.1:{ports[4]}/api/local_raylet_healthz")
            ):
                assert head.poll() is None, "the head has ended"
                assert time.monotonic() < limit, "the head does not get ready"
                time.sleep(0.5)
            yield url
        finally:
            os.killpg(head.pid, signal.SIGTERM)
            with suppress(subprocess.TimeoutExpired):
                head.wait(20)
            with suppress(ProcessLookupError):
                os.killpg(head.pid, signal.SIGKILL)
            head.wait()


def answers(url: str) -> bool:
    try:
        return httpx.get(url, timeout=5, trust_env=False).status_code == 200
    except httpx.HTTPError:
        return False


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
