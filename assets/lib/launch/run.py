"""Where a job of an asset runs, and what comes back of it.

As a Ray job: torchrun as its entry point on one machine, or one on each of several (ray_nodes). Under Slurm: an sbatch
script, submitted, followed with squeue and sacct, ended with scancel. In Kubernetes: see kubernetes.py. `local`: on
this machine.
"""

import os
import shlex
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal
from uuid import uuid4

import dagster as dg
from pydantic import Field

from annotate.model_client.server import end_guarded, start_guarded
from assets.lib.launch.job import RENDEZVOUS_PORT, Job, JobError, Machines, block, follow, torchrun
from assets.lib.launch.kubernetes import KubernetesLauncher
from assets.lib.programs import check_programs
from core.errors import FailedError, UserError
from core.logs import SEARCHED_LINES, end_of, last_lines

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


class RayLauncher(Machines):
    """As a job of a Ray cluster that sees the workspace. All machines are reserved before any begins."""

    kind: Literal["ray"] = "ray"
    address: str = Field(
        default="http://127.0.0.1:8265",
        description="The dashboard's: jobs are handed over through it.",
    )
    gpus_per_node: int = Field(
        default=0, ge=0, description="GPUs of each machine, a process each; 0: one on CPU."
    )
    cpus_without_gpu: int = Field(
        default=1, ge=1, description="Cores reserved on each machine without GPUs."
    )
    python: str = Field(
        default="", description="Interpreter that has proccorpus on the cluster; empty: this one."
    )

    def command(self, job: Job, number: str) -> list[str]:
        """The entry point of the job `number`."""
        python = self.python or sys.executable
        if self.nodes == 1:
            return torchrun(python, job.arguments, max(1, self.gpus_per_node))
        place = {
            "--nodes": self.nodes,
            "--gpus": self.gpus_per_node,
            "--cpus": self._cores(),
            "--job": number,
        }
        options = [word for name, value in place.items() for word in (name, str(value))]
        return [
            python,
            "-m",
            "assets.lib.launch.ray_nodes",
            "--python",
            python,
            *options,
            "--",
            *job.arguments,
        ]

    def _cores(self) -> int:
        return self.cpus_per_gpu * self.gpus_per_node or self.cpus_without_gpu

    def run(self, context: dg.AssetExecutionContext, job: Job) -> dg.PipesClientCompletedInvocation:
        """Hand a job over and wait for it; what it prints is read as it comes. Raises FailedError."""
        from dagster_ray import PipesRayJobClient  # imports Ray
        from ray.exceptions import AuthenticationError

        # A random part, since Ray refuses a second job of the same id
        number = f"{job.name}-{uuid4().hex[:8]}"
        params: Any = {"entrypoint": shlex.join(self.command(job, number)), "submission_id": number}
        # The processes of several machines reserve what they need themselves; who starts them needs next to nothing
        if self.nodes == 1:
            params |= {
                "entrypoint_num_gpus": self.gpus_per_node,
                "entrypoint_num_cpus": self._cores(),
            }
        ray = PipesRayJobClient(address=self.address)
        try:
            return ray.run(context=context, submit_job_params=params)
        except ConnectionError as e:
            raise FailedError(
                f"no Ray cluster answers at {self.address}: start one with `ray start --head`, or mend the address"
            ) from e
        except AuthenticationError as e:
            raise FailedError(
                f"the Ray cluster at {self.address} takes no job without its token: set RAY_AUTH_MODE=token where "
                "Dagster's runs start, and have the token there in ~/.ray/auth_token or RAY_AUTH_TOKEN"
            ) from e
        except RuntimeError as e:
            # The error itself has a few lines of the log only
            log = "\n".join(
                line
                for line in ray.client.get_job_logs(number).splitlines()
                if '"__dagster_pipes_version"' not in line
            )
            raise JobError(f"ray job {number} failed", last_lines(log, SEARCHED_LINES)) from e


class LocalProcess:
    """torchrun in a process group of its own, which ends with us however we end."""

    def __init__(self, job: Job, processes: int, environment: Mapping[str, str]) -> None:
        self._log = job.log
        with job.log.open("wb") as log:
            self._guard = start_guarded(
                torchrun(sys.executable, job.arguments, processes), log, environment
            )
        self.id = str(self._guard.pid)

    def state(self) -> tuple[str, bool | None]:
        code = self._guard.poll()
        if code is None:
            return ("running", None)
        return (f"ended with code {code}", code != 0)

    def written(self) -> str:
        return end_of(self._log)

    def cancel(self) -> None:
        end_guarded(self._guard)


class LocalLauncher(dg.Config):
    """On this machine."""

    kind: Literal["local"] = "local"
    processes: int = Field(
        default=1, ge=1, description="Processes of torchrun: one per GPU, or one on CPU."
    )

    def run(self, context: dg.AssetExecutionContext, job: Job) -> dg.PipesClientCompletedInvocation:
        return follow(
            context,
            self.kind,
            job,
            lambda environment: LocalProcess(job, self.processes, environment),
        )


AnyLauncher = Annotated[
    LocalLauncher | SlurmLauncher | KubernetesLauncher | RayLauncher, Field(discriminator="kind")
]


def launch(
    context: dg.AssetExecutionContext, launcher: AnyLauncher, job: Job
) -> dg.MaterializeResult:
    """Run a job to its end: what it reported, with where it ran and its last lines.

    Ends the job when the run is cancelled. Raises dg.Failure with the last lines of one that failed, and for a program
    that the operator does not allow.
    """
    try:
        check_programs(launcher)
        # A folder that is there already would be another job's: this fails then
        job.folder.mkdir(parents=True)
        completed = launcher.run(context, job)
    except UserError as e:
        # The last lines say most of why training failed: they stand with the failure in the UI
        tail = {"last_lines": block(e.tail)} if isinstance(e, JobError) else {}
        raise dg.Failure(str(e), metadata=tail, allow_retries=False) from e
    if not completed.get_results(implicit_materializations=False):
        raise dg.Failure(
            f"the {launcher.kind} job {job.name} ended well, but reported no model: is it another version?"
        )
    return completed.get_materialize_result(implicit_materialization=False)
