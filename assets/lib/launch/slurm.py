"""Training under Slurm: an sbatch script, submitted, followed with squeue and sacct, ended with scancel."""

import os
import shlex
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import dagster as dg
from pydantic import Field

from assets.lib.launch.job import RENDEZVOUS_PORT, Job, Machines, follow, torchrun
from core.errors import FailedError
from core.logs import end_of

ANSWER_S = 60.0  # a controller under load takes long, but not so long
LINE = r"^[^\n]*$"
HEAD = "$head"  # the script's variable: the machine that the others meet at
WARNED_S = 120  # so long before its time limit Slurm tells the script
# The script's end where a job may be begun again: the shell has to be awake when Slurm's signal comes, which `exec`
# and a command in the foreground are not. The signal ends the first wait; the second has the command's own code
AGAIN = """again() {{
  [ "${{SLURM_RESTART_COUNT:-0}}" -lt {restarts} ] || return
  echo "the time limit is near: the job is begun again and goes on from its newest checkpoint"
  # A training that is told to end writes a checkpoint first; torchrun gives it 30 s
  kill -TERM "$job"
  wait "$job"
  scontrol requeue "$SLURM_JOB_ID"
}}
trap again USR1
{run} &
job=$!
wait "$job"; code=$?
[ $code -le 128 ] || {{ wait "$job"; code=$?; }}
exit $code
"""
WAITING = (
    "PENDING",
    "CONFIGURING",
    "REQUEUED",
    "REQUEUE_HOLD",
    "REQUEUE_FED",
    "RESV_DEL_HOLD",
    "SPECIAL_EXIT",
)
ACTIVE = (
    *WAITING,
    "RUNNING",
    "COMPLETING",
    "STAGE_OUT",
    "SIGNALING",
    "SUSPENDED",
    "STOPPED",
    "RESIZING",
)


def _shell_word(word: str) -> str:
    """A word of the command; one that begins with a variable is for the machines' shell to fill in."""
    if word.startswith((HEAD, "$SLURM")):
        return f'"{word}"'
    return shlex.quote(word)


def ask(*command: str) -> str:
    """What one of Slurm's programs answers. Raises FailedError."""
    try:
        completed = subprocess.run(
            command, capture_output=True, text=True, timeout=ANSWER_S, stdin=subprocess.DEVNULL
        )
    except FileNotFoundError as e:
        raise FailedError(
            f"{command[0]} is not on PATH: Dagster has to run on a machine that submits jobs"
        ) from e
    except subprocess.TimeoutExpired as e:
        raise FailedError(
            f"{command[0]} has not answered for {ANSWER_S:.0f} s: ask the cluster's people"
        ) from e
    if completed.returncode:
        # Slurm's programs end with the line that says what is wrong
        output_lines = (completed.stderr or completed.stdout).strip().splitlines() or [
            f"code {completed.returncode}"
        ]
        raise FailedError(f"{command[0]}: {output_lines[-1]}")
    return completed.stdout


@dataclass(frozen=True)
class SlurmJob:
    job: Job
    id: str

    def _queued(self) -> str:
        """Its line in the queue; empty for a job that ended."""
        try:
            return ask("squeue", "--noheader", "--jobs", self.id, "--format", "%T %r")
        except FailedError as e:
            if "invalid job id" not in str(e).lower():
                raise
            return ""  # it ended some minutes ago

    def state(self) -> tuple[str, bool | None]:
        state, _, reason = self._queued().partition("\n")[0].partition(" ")
        if state in ACTIVE:
            return state.lower() + (
                f" ({reason})" if state in WAITING and reason != "None" else ""
            ), None
        fields = "--format=State,ExitCode"
        counted = ask(
            "sacct", "--noheader", "--parsable2", "--allocations", "--jobs", self.id, fields
        )
        if not counted:  # no longer queued, not yet accounted for
            raise FailedError(f"neither squeue nor sacct knows the job {self.id}")
        state, _, code = counted.splitlines()[0].partition("|")
        word = state.partition(" ")[0]  # CANCELLED by 1000
        if word in ACTIVE:
            return (word.lower(), None)
        return (f"{state.lower()}, exit code {code}", word != "COMPLETED")

    def written(self) -> str:
        return end_of(self.job.log)

    def cancel(self) -> None:
        ask("scancel", self.id)


class SlurmLauncher(Machines):
    """With sbatch, from a machine that submits jobs."""

    kind: Literal["slurm"] = "slurm"
    memory_per_gpu: str = Field(
        default="200G",
        pattern=LINE,
        description="Memory for each GPU, or of a machine without; empty: the cluster's own.",
    )
    time_limit: str = Field(
        default="", pattern=LINE, description="Such as 1-00:00:00; empty: the partition's own."
    )
    partition: str = Field(default="", pattern=LINE, description="Empty: the cluster's own.")
    account: str = Field(default="", pattern=LINE, description="Who pays; empty: your own.")
    restarts: int = Field(
        default=10,
        ge=0,
        description="How often a job is begun again at its time limit; it goes on from its newest checkpoint. "
        "Where a machine fails or another job comes first, Slurm does so as often as need be. 0: neither.",
    )
    directives: list[str] = Field(
        default_factory=list, description="More lines of #SBATCH, such as --constraint=h100."
    )
    setup: list[str] = Field(
        default_factory=list, description="Lines of shell run first, such as module load cuda."
    )
    python: str = Field(
        default="", description="Interpreter that has proccorpus on the machines; empty: this one."
    )

    def script(self, job: Job, environment: Mapping[str, str]) -> str:
        """The text of the sbatch file. Raises FailedError for a directive of several lines."""
        # A directive of several lines would end the head of the script, and sbatch would miss what follows
        if any("\n" in d for d in self.directives):
            raise FailedError(
                "a line of `directives` has a line break: give one directive per line"
            )
        cores = self.cpus_per_gpu * max(1, self.gpus_per_node)
        memory = "mem-per-gpu" if self.gpus_per_node else "mem"
        settings = {
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
        directives = [f"#SBATCH --{name}={value}" for name, value in settings.items() if value]
        directives += [f"#SBATCH --{'requeue' if self.restarts else 'no-requeue'}"]
        directives += [f"#SBATCH {d}" for d in self.directives]
        python = self.python or sys.executable
        endpoint = f"{HEAD}:{RENDEZVOUS_PORT}"
        command = torchrun(
            python, job.arguments, max(1, self.gpus_per_node), self.nodes, endpoint, "$SLURM_JOB_ID"
        )
        exports = [
            f"export {name}={shlex.quote(value)}" for name, value in sorted(environment.items())
        ]
        lines = ["#!/bin/bash", *directives, *exports, *self.setup]
        # The processes meet at the first node of the allocation, which is known only when it runs
        if self.nodes > 1:
            lines.append('head=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)')
        # srun does not take over the cores that sbatch was given (since Slurm 22.05)
        run = f"srun --kill-on-bad-exit=1 --cpus-per-task={cores} {' '.join(map(_shell_word, command))}"
        if self.restarts:
            lines.append(AGAIN.format(restarts=self.restarts, run=run))
        else:
            lines.append(f"exec {run}\n")
        return "\n".join(lines)

    def run(self, context: dg.AssetExecutionContext, job: Job) -> dg.PipesClientCompletedInvocation:
        def start(environment: Mapping[str, str]) -> SlurmJob:
            path = job.folder / "job.sbatch"
            path.write_text(self.script(job, environment))
            answer = ask("sbatch", "--parsable", os.fspath(path)).strip()
            number = answer.splitlines()[-1].partition(";")[0] if answer else ""
            if not number.isdigit():
                raise FailedError(f"sbatch gave no job number but {answer[:80]!r}")
            return SlurmJob(job, number)

        return follow(context, self.kind, job, start)
