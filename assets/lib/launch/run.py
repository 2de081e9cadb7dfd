"""Where a job of an asset runs, and what comes back of it; `local`: on this machine."""

import sys
from collections.abc import Mapping
from typing import Annotated, Literal

import dagster as dg
from pydantic import Field

from annotate.model_client.server import end_guarded, start_guarded
from assets.lib.launch.job import Job, JobError, block, follow, torchrun
from assets.lib.launch.kubernetes import KubernetesLauncher
from assets.lib.launch.ray import RayLauncher
from assets.lib.launch.slurm import SlurmLauncher
from assets.lib.programs import check_programs
from core.errors import UserError
from core.logs import end_of


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
