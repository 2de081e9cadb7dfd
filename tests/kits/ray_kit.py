"""A Ray head of a test's own, and Dagster's runs whose steps are jobs of it."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import dagster as dg
import httpx

from core.paths import ROOT
from tests.kits.servers import free_port

BIN = Path(sys.executable).parent
READY_S = 180.0


@contextmanager
def ray_head(second_node: bool = False) -> Iterator[str]:
    """The dashboard's address of a head on free ports, with a node of two cores; stopped with all it started.

    `second_node`: with another node of two cores, on this machine too.
    """
    ports = [free_port() for _ in range(6)]
    with TemporaryDirectory(prefix="ray-", dir="/tmp") as folder:  # sockets' paths have to be short
        options = {"--port": ports[0], "--dashboard-port": ports[1], "--ray-client-server-port": ports[2]}
        # given: the server for clients would ask for it, and end the head where a crowded machine is slow to answer
        options |= {"--runtime-env-agent-port": ports[3]}
        # what takes jobs on a node; its usual port may be another head's
        options |= {"--dashboard-agent-listen-port": ports[4], "--dashboard-agent-grpc-port": ports[5]}
        options |= {
            "--num-cpus": 2,
            "--include-dashboard": "true",
            "--temp-dir": folder,
        }
        options |= {"--node-ip-address": "127.0.0.1", "--dashboard-host": "127.0.0.1"}
        given = [f"{k}={v}" for k, v in options.items()]
        command = [BIN / "ray", "start", "--head", "--block", "--disable-usage-stats", *given]
        path = f"{BIN}:{os.environ['PATH']}"  # where steps find `dagster`
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
            with _joined(f"127.0.0.1:{ports[0]}", path) if second_node else nullcontext():
                yield url
        finally:
            _end(head)


@contextmanager
def _joined(head: str, path: str) -> Iterator[None]:
    """A second node of the cluster of a head. Jobs that ask for both wait until it has come."""
    # All ports are given: a node ends itself where a crowded machine is slow to say which ones its helpers took
    names = ("--runtime-env-agent-port", "--dashboard-agent-listen-port", "--dashboard-agent-grpc-port")
    options = {name: free_port() for name in (*names, "--metrics-export-port")}
    options |= {"--address": head, "--num-cpus": 2, "--node-ip-address": "127.0.0.1"}
    command = [BIN / "ray", "start", "--block", "--disable-usage-stats", *(f"{k}={v}" for k, v in options.items())]
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    node = subprocess.Popen(command, env=os.environ | {"PATH": path}, start_new_session=True, **quiet)
    try:
        yield
    finally:
        _end(node)


def _end(process: subprocess.Popen) -> None:
    """End a process with its group."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGTERM)
    with suppress(subprocess.TimeoutExpired):
        process.wait(20)
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def answers(url: str) -> bool:
    try:
        return httpx.get(url, timeout=5, trust_env=False).status_code == 200
    except httpx.HTTPError:
        return False


@dataclass(frozen=True)
class StepsOnRay:
    """Dagster's runs of the corpus of a build's TOML file, in a home of their own; each step is a job on Ray."""

    address: str
    home: Path
    workspace: Path
    config: Path

    def instance(self) -> dg.DagsterInstance:
        self.home.mkdir(exist_ok=True)
        (self.home / "dagster.yaml").write_text("telemetry:\n  enabled: false\n")
        return dg.DagsterInstance.from_config(str(self.home))

    def materializing(self, stages: str, partition: str) -> "subprocess.Popen[str]":
        """`dagster asset materialize` of one partition, under way; what it says comes in one stream."""
        chosen = {"PROCCORPUS_EXECUTOR": "ray", "RAY_ADDRESS": self.address, "DAGSTER_HOME": str(self.home)}
        chosen |= {"PROCCORPUS_WORKSPACE": str(self.workspace), "PROCCORPUS_CONFIG": str(self.config)}
        words = [BIN / "dagster", "asset", "materialize", "-m", "assets.definitions", "--select", stages]
        return subprocess.Popen(
            [*words, "--partition", partition], cwd=ROOT, env=os.environ | chosen, text=True,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True,
        )  # fmt: skip

    def materialize(self, stages: str, partition: str) -> None:
        """To its end, well."""
        run = self.materializing(stages, partition)
        said, _ = run.communicate(timeout=600)
        assert run.returncode == 0, said[-6000:]
        assert "in Ray job dagster-step-" in said
