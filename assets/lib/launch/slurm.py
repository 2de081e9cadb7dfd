"""Training under Slurm: an sbatch script, submitted, followed with squeue and sacct, ended with scancel."""

import os
import shlex
import subprocess
import sys
import time
from collections.abc import Mapping
from typing import Literal

import dagster as dg
from pydantic import Field

from assets.lib.launch.job import RENDEZVOUS_PORT, Job, LaunchError, State, exports, torchrun
from core.logs import end_of

ANSWER_S = 60.0  # a controller under load takes long, but not so long
SILENCE_S = 600.0  # so long a controller may be away, or the accounting be behind
LINE = r"^[^\n]*$"
HEAD = "$head"  # the script's variable: the machine that the others meet at
WARNED_S = 120  # so long before its time limit Slurm tells the script
# The script's end where a job may be begun again: the shell has to be awake when Slurm's signal comes, which `exec`
# and a command in the foreground are not. The signal ends the first wait; the second has the command's own code
AGAIN = """again() {{
  [ "${{SLURM_RESTART_COUNT:-0}}" -lt {restarts} ] || return
  echo "the time limit is near: the job is begun again and goes on from its newest checkpoint"
  scontrol requeue "$SLURM_JOB_ID"
}}
trap again USR1
{run} &
wait $!; code=$?
[ $code -le 128 ] || {{ wait $!; code=$?; }}
exit $code
"""
WAITING = ("PENDING", "CONFIGURING", "REQUEUED", "REQUEUE_HOLD", "REQUEUE_FED", "RESV_DEL_HOLD", "SPECIAL_EXIT")
ACTIVE = (*WAITING, "RUNNING", "COMPLETING", "STAGE_OUT", "SIGNALING", "SUSPENDED", "STOPPED", "RESIZING")


def _shell_word(word: str) -> str:
    """A word of the command; one that begins with a variable is for the machines' shell to fill in."""
    if word.startswith((HEAD, "$SLURM")):
        return f'"{word}"'
    return shlex.quote(word)


def ask(*command: str) -> str:
    """What one of Slurm's programs answers. Raises LaunchError."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=ANSWER_S, stdin=subprocess.DEVNULL)
    except FileNotFoundError as e:
        raise LaunchError(f"{command[0]} is not on PATH: Dagster has to run on a machine that submits jobs") from e
    except subprocess.TimeoutExpired as e:
        raise LaunchError(f"{command[0]} has not answered for {ANSWER_S:.0f} s: ask the cluster's people") from e
    if done.returncode:
        # Slurm's programs end with the line that says what is wrong
        told = (done.stderr or done.stdout).strip().splitlines() or [f"code {done.returncode}"]
        raise LaunchError(f"{command[0]}: {told[-1]}")
    return done.stdout


class SlurmJob:
    def __init__(self, job: Job, number: str) -> None:
        self._job = job
        self._number = number
        self._heard = time.monotonic()

    @property
    def id(self) -> str:
        return self._number

    def state(self) -> State:
        try:
            found = self._queued() or self._accounted()
            if found is None:  # no longer queued, not yet accounted for
                raise LaunchError(f"neither squeue nor sacct knows the job {self._number}")
        except LaunchError as e:
            if time.monotonic() - self._heard > SILENCE_S:
                raise
            return State(f"not known just now ({e})")
        self._heard = time.monotonic()
        return found

    def _queued(self) -> State | None:
        rows = self._queue_rows()
        if not rows:
            return None
        state, _, reason = rows[0].partition(" ")
        if state not in ACTIVE:
            return None
        if state in WAITING and reason != "None":
            return State(f"{state.lower()} ({reason})")
        return State(state.lower())

    def _queue_rows(self) -> list[str]:
        try:
            return ask("squeue", "--noheader", "--jobs", self._number, "--format", "%T %r").splitlines()
        except LaunchError as e:
            if "invalid job id" in str(e).lower():  # it ended some minutes ago
                return []
            raise

    def _accounted(self) -> State | None:
        fields = "--format=State,ExitCode"
        rows = ask("sacct", "--noheader", "--parsable2", "--allocations", "--jobs", self._number, fields).splitlines()
        if not rows:
            return None
        state, _, code = rows[0].partition("|")
        word = state.split()[0] if state else ""  # CANCELLED by 1000
        if word in ACTIVE:
            return State(word.lower())
        return State(f"{state.lower()}, exit code {code}", failed=word != "COMPLETED")

    def written(self) -> str:
        return end_of(self._job.log)

    def cancel(self) -> None:
        ask("scancel", self._number)


class SlurmLauncher(dg.Config):
    """With sbatch, from a machine that submits jobs."""

    kind: Literal["slurm"] = "slurm"
    nodes: int = Field(default=1, ge=1, description="Machines.")
    gpus_per_node: int = Field(default=1, ge=0, description="GPUs of each machine, a process each; 0: one on CPU.")
    cpus_per_gpu: int = Field(
        default=12, ge=1, description="Cores for each GPU: its process and those that decode for it."
    )
    memory_per_gpu: str = Field(
        default="200G",
        pattern=LINE,
        description="Memory for each GPU, or of a machine without; empty: the cluster's own.",
    )
    time_limit: str = Field(default="", pattern=LINE, description="Such as 1-00:00:00; empty: the partition's own.")
    partition: str = Field(default="", pattern=LINE, description="Empty: the cluster's own.")
    account: str = Field(default="", pattern=LINE, description="Who pays; empty: your own.")
    restarts: int = Field(
        default=10,
        ge=0,
        description="How often a job is begun again at its time limit; it goes on from its newest checkpoint. "
        "Where a machine fails or another job comes first, Slurm does so as often as need be. 0: neither.",
    )
    directives: list[str] = Field(default_factory=list, description="More lines of #SBATCH, such as --constraint=h100.")
    setup: list[str] = Field(default_factory=list, description="Lines of shell run first, such as module load cuda.")
    python: str = Field(default="", description="Interpreter that has proccorpus on the machines; empty: this one.")

    def script(self, job: Job, environment: Mapping[str, str]) -> str:
        """The text of the sbatch file. Raises LaunchError for a directive of several lines."""
        # A directive of several lines would end the head of the script, and sbatch would miss what follows
        if any("\n" in d for d in self.directives):
            raise LaunchError("a line of `directives` has a line break: give one directive per line")
        cores = self.cpus_per_gpu * max(1, self.gpus_per_node)
        memory = "mem-per-gpu" if self.gpus_per_node else "mem"
        wanted = {
            "job-name": job.name,
            "nodes": self.nodes,
            "ntasks-per-node": 1,
            "gpus-per-node": self.gpus_per_node,
            "cpus-per-task": cores,
            memory: self.memory_per_gpu,
            "time": self.time_limit,
            "partition": self.partition,
            "account": self.account,
            "chdir": job.folder,
            "output": job.log,
            "open-mode": "append",
            "signal": self.restarts and f"B:USR1@{WARNED_S}",
        }
        # A setting that is not given is left to the cluster's defaults
        given = [f"#SBATCH --{name}={value}" for name, value in wanted.items() if value]
        given += [f"#SBATCH --{'requeue' if self.restarts else 'no-requeue'}"]
        given += [f"#SBATCH {d}" for d in self.directives]
        python, at = self.python or sys.executable, f"{HEAD}:{RENDEZVOUS_PORT}"
        command = torchrun(python, job.arguments, max(1, self.gpus_per_node), self.nodes, at, "$SLURM_JOB_ID")
        words = [_shell_word(word) for word in command]
        # The processes meet at the first node of the allocation, which is known only when it runs
        several = ['head=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)'] if self.nodes > 1 else []
        # srun does not take over the cores that sbatch was given (since Slurm 22.05)
        run = f"srun --kill-on-bad-exit=1 --cpus-per-task={cores} {' '.join(words)}"
        end = AGAIN.format(restarts=self.restarts, run=run) if self.restarts else f"exec {run}\n"
        return "\n".join(["#!/bin/bash", *given, *exports(environment), *self.setup, *several, end])

    def start(self, job: Job, environment: Mapping[str, str]) -> SlurmJob:
        path = job.folder / "job.sbatch"
        path.write_text(self.script(job, environment))
        told = ask("sbatch", "--parsable", os.fspath(path)).strip()
        number = told.splitlines()[-1].partition(";")[0] if told else ""
        if not number.isdigit():
            raise LaunchError(f"sbatch gave no job number but {told[:80]!r}")
        return SlurmJob(job, number)
