"""From an asset to a job and back: hand over, follow, end it when the run is cancelled, say why it failed."""

import time
from typing import Annotated

import dagster as dg
from pydantic import Field

from assets.lib.launch.job import Job, JobError, Launcher, LaunchError, Running, State
from assets.lib.launch.kubernetes import KubernetesLauncher
from assets.lib.launch.local import LocalLauncher
from assets.lib.launch.ray import RayLauncher
from assets.lib.launch.slurm import SlurmLauncher
from assets.lib.programs import ProgramsError, check_programs
from core.logs import last_lines

POLL_S = 1.0
AnyLauncher = Annotated[LocalLauncher | SlurmLauncher | KubernetesLauncher | RayLauncher, Field(discriminator="kind")]


def launch(context: dg.AssetExecutionContext, launcher: AnyLauncher, job: Job) -> dg.MaterializeResult:
    """Run a job to its end: what it reported, with where it ran and its last lines.

    Ends the job when the run is cancelled. Raises dg.Failure with the last lines of one that failed, and for a program
    that the operator does not allow.
    """
    try:
        check_programs(launcher)
    except ProgramsError as e:
        raise dg.Failure(str(e), allow_retries=False) from e
    # A folder that is there already would be another job's: this fails then
    job.folder.mkdir(parents=True)
    try:
        # Ray has a Pipes client that follows the job by itself; the others are followed here
        if isinstance(launcher, RayLauncher):
            done = launcher.run(context, job)
        else:
            done = _follow(context, launcher, job)
    except LaunchError as e:
        # The last lines say most of why training failed: they stand with the failure in the UI
        tail = {"last_lines": _block(e.tail)} if isinstance(e, JobError) else {}
        raise dg.Failure(str(e), metadata=tail, allow_retries=False) from e
    reported = done.get_results(implicit_materializations=False)
    if not reported:
        raise dg.Failure(
            f"the {launcher.kind} job {job.name} ended well, but reported no model: is it another version?"
        )
    return done.get_materialize_result(implicit_materialization=False)


def _follow(context: dg.AssetExecutionContext, launcher: Launcher, job: Job) -> dg.PipesClientCompletedInvocation:
    messages = dg.PipesFileMessageReader(str(job.folder / "messages.jsonl"))
    with dg.open_pipes_session(context, dg.PipesEnvContextInjector(), messages) as session:
        running = launcher.start(job, session.get_bootstrap_env_vars())
        context.log.info(f"{launcher.kind} job {running.id}; its files are in {job.folder}")
        try:
            state = _wait(context, running)
        except BaseException:  # cancelled, or the cluster is out of reach: no job is left that nobody looks at
            context.log.info(f"ending the {launcher.kind} job {running.id}")
            running.cancel()
            raise
    if state.failed:
        raise JobError(f"{launcher.kind} job {running.id} {state.text}", running.written())
    facts = {"job": f"{launcher.kind} {running.id}", "last_lines": _block(last_lines(running.written()))}
    return dg.PipesClientCompletedInvocation(session, metadata=facts)


def _wait(context: dg.AssetExecutionContext, running: Running) -> State:
    """Until the job has ended, telling each change of its state."""
    told = ""
    while True:
        state = running.state()
        if state.text != told:
            told = state.text
            context.log.info(told)
        if state.failed is not None:
            return state
        time.sleep(POLL_S)


def _block(text: str) -> dg.MetadataValue:
    return dg.MetadataValue.md(f"```\n{text}\n```")
