"""A Ray head of a test's own, and Dagster's runs whose steps are jobs of it."""

import os
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import dagster as dg
import httpx

from core.paths import ROOT
from tests.kits.servers import end, free_port

BIN = Path(sys.executable).parent
READY_S = 180.0
ATTEMPTS = 4


@contextmanager
def ray_head(second_node: bool = False) -> Iterator[str]:
    """The dashboard's address of a head on free ports, with a node of two cores; stopped with all
    it started.

    `second_node`: with another node of two cores, on this machine too.
    """
    with (
        TemporaryDirectory(prefix="ray-", dir="/tmp") as folder,
        ExitStack() as started,
    ):  # sockets' paths are short
        head_options = {
            "--include-dashboard": "true",
            "--temp-dir": folder,
            "--dashboard-host": "127.0.0.1",
        }
        ports = _up(head_options, started, "--port", "--dashboard-port", "--ray-client-server-port")
        if second_node:
            _up({"--address": f"127.0.0.1:{ports['--port']}"}, started, "--metrics-export-port")
        yield f"http://127.0.0.1:{ports['--dashboard-port']}"


def _up(head_options: Mapping[str, str], started: ExitStack, *ports: str) -> dict[str, int | str]:
    """Start a node and wait until it answers."""
    # Given: the server for clients would ask for it, and end the head where a crowded machine is slow to answer.
    # What takes jobs on a node is given, too: its usual port may be another head's
    names = (
        "--runtime-env-agent-port",
        "--dashboard-agent-listen-port",
        "--dashboard-agent-grpc-port",
        *ports,
    )
    for _ in range(ATTEMPTS):
        chosen: dict[str, int | str] = {name: free_port() for name in names}
        chosen |= {"--num-cpus": 2, "--node-ip-address": "127.0.0.1", **head_options}
        head = ["--head"] if "--port" in chosen else []
        option_words = [f"{name}={value}" for name, value in chosen.items()]
        command = [BIN / "ray", "start", *head, "--block", "--disable-usage-stats", *option_words]
        # `PATH`: where steps find `dagster`. Without a mode a head asks for a token if the user's home has one, which
        # any local `ray.init()` writes
        node_environment = {"PATH": f"{BIN}:{os.environ['PATH']}", "RAY_AUTH_MODE": "disabled"}
        node = subprocess.Popen(
            command, env=os.environ | node_environment, start_new_session=True,
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        started.callback(end, node)
        health_urls = [
            f"http://127.0.0.1:{chosen['--dashboard-agent-listen-port']}/api/local_raylet_healthz"
        ]
        if head:
            health_urls.append(f"http://127.0.0.1:{chosen['--dashboard-port']}/api/jobs/")
        limit = time.monotonic() + READY_S
        while node.poll() is None:
            if all(answers(url) for url in health_urls):
                return chosen
            assert time.monotonic() < limit, f"{command} does not get ready"
            time.sleep(0.5)
        end(node)
    raise AssertionError(f"{command} has ended {ATTEMPTS} times")


def answers(url: str) -> bool:
    try:
        return httpx.get(url, timeout=5, trust_env=False).status_code == 200
    except httpx.HTTPError:
        return False


@dataclass(frozen=True)
class StepsOnRay:
    """Dagster's runs of the corpus of a build's TOML file, in a home of their own."""

    address: str
    home: Path
    workspace: Path
    config: Path

    def instance(self) -> dg.DagsterInstance:
        self.home.mkdir(exist_ok=True)
        (self.home / "dagster.yaml").write_text("telemetry:\n  enabled: false\n")
        return dg.DagsterInstance.from_config(str(self.home))

    def command(self, *words: str) -> "subprocess.Popen[str]":
        """`dagster` with these words, under way; what it says comes in one stream."""
        chosen = {
            "PROCCORPUS_EXECUTOR": "ray",
            "RAY_ADDRESS": self.address,
            "DAGSTER_HOME": str(self.home),
        }
        chosen |= {
            "PROCCORPUS_WORKSPACE": str(self.workspace),
            "PROCCORPUS_CONFIG": str(self.config),
        }
        return subprocess.Popen(
            [BIN / "dagster", *words, "-m", "assets.definitions"], cwd=ROOT, env=os.environ | chosen, text=True,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True,
        )  # fmt: skip

    def materializing(self, stages: str, partition: str) -> "subprocess.Popen[str]":
        return self.command("asset", "materialize", "--select", stages, "--partition", partition)

    def materialize(self, stages: str, partition: str) -> None:
        self._ends_well(self.materializing(stages, partition))

    def execute(self, job: str, config: Path) -> str:
        """A job of the code location with a YAML file of configuration; what it said."""
        return self._ends_well(
            self.command("job", "execute", "--job", job, "--config", str(config))
        )

    def _ends_well(self, run: "subprocess.Popen[str]") -> str:
        output, _ = run.communicate(timeout=600)
        assert run.returncode == 0, output[-6000:]
        assert "in Ray job dagster-step-" in output
        return output
