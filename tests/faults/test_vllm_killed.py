"""SIGKILL of a real vLLM, engine and all, in the middle of a build that asks it."""

import os
import random
import signal
import sqlite3
import subprocess
from contextlib import ExitStack, closing, suppress
from pathlib import Path
from shutil import copytree
from uuid import uuid4

import pytest

from annotate.model_client.responses import FILE
from annotate.model_client.server import Server, ServerConfig, default_python, installed_device
from core.errors import FailedError
from tests.kits.cli_kit import PROGRAM, environment, ok, proccorpus
from tests.kits.fault_kit import (
    PATIENCE_S,
    ROOT,
    Repeats,
    Whole,
    answered,
    assert_same_and_once,
    errors,
    kill_session,
    wait_for,
)
from tests.kits.published_kit import write_asked
from tests.kits.servers import free_port
from tests.kits.vllm_kit import MARK, NAME, marked, requests_in_log, tiny_config


def command(port: int, workspace: Path) -> list[str]:
    source = f"--source {ROOT}/samples/sim_short --name short --episodes 0,5,8,12"
    model = f"--annotator vlm --vlm-endpoint http://127.0.0.1:{port}/v1 --vlm-model {NAME}"
    options = f"{source} {model} --workers 1 --workspace {workspace}"
    return [str(PROGRAM), "build", *options.split()]


def served(config: ServerConfig, stack: ExitStack) -> tuple[str, Path]:
    """A server on the configuration's port: the mark of its processes, and its log."""
    mark = uuid4().hex
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(MARK, mark)
        server = stack.enter_context(Server(config))
    return mark, server.logs[0]


def test_vllm_is_killed(tally, server_kills, seed, tmp_path):
    rng = random.Random(seed + 5)
    fault = "vLLM killed"
    workspace = tmp_path / "workspace"
    repeats = Repeats()
    try:
        installed_device(default_python())
    except FailedError as e:
        pytest.skip(str(e))
    config = tiny_config(write_asked(tmp_path / NAME), tmp_path / "logs").model_copy(
        update={"port": free_port()}
    )
    asks = command(config.port, workspace)
    for _ in range(server_kills):
        with ExitStack() as stack:
            mark, log = served(config, stack)
            num_wanted = requests_in_log(log, 200) + rng.randint(1, 6)
            build = subprocess.Popen(
                asks, env=environment(), cwd=tmp_path, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                start_new_session=True,
            )  # fmt: skip
            try:
                wait_for(
                    lambda n=num_wanted, f=log, b=build: (
                        requests_in_log(f, 200) >= n or b.poll() is not None
                    ),
                    "it answers",
                )
                assert build.poll() is None, build.communicate()
                for pid in marked(mark):
                    with suppress(ProcessLookupError):
                        os.kill(pid, signal.SIGKILL)
                tally.add(fault, tried=1)
                _, output = build.communicate(timeout=PATIENCE_S)
            finally:
                kill_session(build.pid)
        assert build.returncode == 1
        assert "server" in output
        assert "Traceback" not in output
        assert errors(workspace) == []
        repeats.note(workspace)
        tally.add(fault, recovered=1)
    with ExitStack() as stack:
        served(config, stack)
        ok(proccorpus(*asks[1:], cwd=tmp_path))
    # the same replies without an interruption: no server is there any more, and none is asked
    whole = tmp_path / "whole"
    whole.mkdir()
    replies_kept = answered(workspace)
    copytree(workspace / "responses", whole / "responses")
    with closing(sqlite3.connect(whole / "responses" / FILE)) as db, db:
        db.execute("DELETE FROM attempts")
        db.execute("DELETE FROM spent")
    ok(proccorpus(*command(config.port, whole)[1:], cwd=tmp_path))
    assert answered(whole) == replies_kept
    assert_same_and_once(workspace, Whole.of(whole), repeats, tally, fault)
