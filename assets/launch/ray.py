"""Training as a Ray job: torchrun as the job's entry point, on one machine of the cluster."""

import shlex
import sys
from typing import Literal

import dagster as dg
from pydantic import Field

from assets.launch.job import Job, JobError, LaunchError, torchrun


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

        command = torchrun(self.python or sys.executable, job.arguments, max(1, self.gpus))
        params = SubmitJobParams(
            entrypoint=shlex.join(command),
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
            lines = [line for line in str(e).splitlines() if '"__dagster_pipes_version"' not in line]
            raise JobError("the ray job failed", "\n".join(lines)) from e
