"""Training as a Ray job: torchrun as the job's entry point on one machine, or one on each of several (ray_nodes)."""

import shlex
import sys
from typing import Any, Literal
from uuid import uuid4

import dagster as dg
from pydantic import Field

from assets.lib.launch.job import Job, JobError, Machines, torchrun
from core.errors import FailedError
from core.logs import SEARCHED_LINES, last_lines


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
