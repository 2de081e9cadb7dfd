"""Training on this machine: torchrun in a process group of its own, which ends with us however we end."""

import os
import subprocess
import sys
from collections.abc import Mapping
from typing import Literal

import dagster as dg
from pydantic import Field

from annotate.model_client.server import GUARD
from assets.lib.launch.job import Job, LaunchError, State, torchrun
from core.logs import end_of

GRACE_S = 20.0  # between SIGTERM and SIGKILL


class LocalProcess:
    def __init__(self, job: Job, guard: subprocess.Popen) -> None:
        self._job = job
        self._guard = guard

    @property
    def id(self) -> str:
        return str(self._guard.pid)

    def state(self) -> State:
        code = self._guard.poll()
        if code is None:
            return State("running")
        return State(f"ended with code {code}", failed=code != 0)

    def written(self) -> str:
        return end_of(self._job.log)

    def cancel(self) -> None:
        self._guard.terminate()  # it ends the whole group
        try:
            self._guard.wait(GRACE_S + 10)
        except subprocess.TimeoutExpired:
            self._guard.kill()  # its command has asked to die with it
            self._guard.wait()


class LocalLauncher(dg.Config):
    """On this machine."""

    kind: Literal["local"] = "local"
    processes: int = Field(default=1, ge=1, description="Processes of torchrun: one per GPU, or one on CPU.")

    def start(self, job: Job, environment: Mapping[str, str]) -> LocalProcess:
        guarded = [sys.executable, "-I", str(GUARD), str(os.getpid()), str(GRACE_S)]
        try:
            with job.log.open("wb") as log:
                guard = subprocess.Popen(
                    guarded + torchrun(sys.executable, job.arguments, self.processes),
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=subprocess.STDOUT,
                    env=os.environ | environment,
                    start_new_session=True,
                )
        except OSError as e:
            raise LaunchError(f"torchrun cannot be started: {e.strerror}") from e
        return LocalProcess(job, guard)
