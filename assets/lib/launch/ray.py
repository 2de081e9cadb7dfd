"""Training as a Ray job: torchrun as the job's entry point, on one machine of the cluster."""

import shlex
import sys
from typing import Literal
from uuid import uuid4

import dagster as dg
from pydantic import Field

from assets.lib.launch.job import Job, JobError, LaunchError, torchrun
from core.logs import SEARCHED_LINES, last_lines


class RayLauncher(dg.Config):
    """As a job of a Ray cluster that sees the workspace."""

    kind: Literal["ray"] = "ray"
    address: str = Field(
        default="http://127.0.0.1:8265", description="The dashboard's: jobs are handed over through it."
    )
    gpus: int = Field(default=0, ge=0, description="GPUs that the job reserves, a process each; 0: one on CPU.")
    cpus: float = Field(default=1.0, gt=0, description="Cores that the job reserves.")
    python: str = Field(default="", description="Interpreter that has proccorpus on the cluster; empty: this one.")

    def run(self, context: dg.AssetExecutionContext, job: Job) -> dg.PipesClientCompletedInvocation:
        """Hand a job over and wait for it; what it prints is read as it comes. Raises LaunchError."""
        from dagster_ray.core.pipes import PipesRayJobClient, SubmitJobParams

        # A random part, since Ray refuses a second job of the same id
        number = f"{job.name}-{uuid4().hex[:8]}"
        command = torchrun(self.python or sys.executable, job.arguments, max(1, self.gpus))
        params = SubmitJobParams(
            entrypoint=shlex.join(command),
            submission_id=number,
            entrypoint_num_gpus=self.gpus,
            entrypoint_num_cpus=self.cpus,
        )
        ray = PipesRayJobClient(address=self.address)
        try:
            return ray.run(context=context, submit_job_params=params)
        except ConnectionError as e:
            why = f"no Ray cluster answers at {self.address}: start one with `ray start --head`, or mend the address"
            raise LaunchError(why) from e
        except RuntimeError as e:
            lines = ray.client.get_job_logs(number).splitlines()  # the error itself has a few of them only
            lines = [line for line in lines if '"__dagster_pipes_version"' not in line]
            raise JobError(f"ray job {number} failed", last_lines("\n".join(lines), SEARCHED_LINES)) from e
