"""A training job: its command, and its way from an asset to a launcher and back.

The job is `proccorpus train` under torchrun, the same everywhere. The workspace has to lie where all of its machines
see it under one path: corpus, checkpoints and the job's own folder are there. A job that its cluster begins again goes
on from the newest checkpoint: its arguments say --auto-resume.
"""

import re
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import dagster as dg
from pydantic import Field

from core.errors import FailedError
from core.logs import last_lines

RENDEZVOUS_PORT = 29400
# So long machines wait for one another: an image of 10 GB comes at another time to each
JOIN_S = 1800
POLL_S = 1.0
SILENCE_S = 600.0  # so long a cluster may be away, or its accounting be behind
# As our command line ends when something is wrong
ERROR = re.compile(r"^error: (.*)$", re.MULTILINE)


class JobError(FailedError):
    """A job that ended badly, or is gone; `tail` is the end of what it wrote, as far as the error that it told."""

    def __init__(self, summary: str, written: str) -> None:
        super().__init__(f"{summary}: {why(written)}")
        error_matches = list(ERROR.finditer(written))
        self.tail = last_lines(written[: error_matches[-1].end()] if error_matches else written)


@dataclass(frozen=True)
class Job:
    """`arguments` are those of proccorpus; `folder` is the job's own within the workspace: log, script, messages."""

    name: str  # lower-case letters, digits and hyphens: also the name of a Kubernetes object
    arguments: tuple[str, ...]
    workspace: Path
    folder: Path

    @property
    def log(self) -> Path:
        return self.folder / "log.txt"


class Machines(dg.Config):
    """What a job asks of a cluster's machines."""

    nodes: int = Field(default=1, ge=1, description="Machines.")
    gpus_per_node: int = Field(
        default=1, ge=0, description="GPUs of each machine, a process each; 0: one on CPU."
    )
    cpus_per_gpu: int = Field(
        default=12,
        ge=1,
        description="Cores for each GPU: its process and those that decode for it.",
    )


class Running(Protocol):
    """A job that was handed over. Its methods raise FailedError when its cluster cannot be asked."""

    @property
    def id(self) -> str: ...

    def state(self) -> tuple[str, bool | None]:
        """In words, and whether it has failed; None: it has not ended."""
        ...

    def written(self) -> str:
        """The end of its output, SEARCHED_LINES at most."""
        ...

    def cancel(self) -> None:
        """End it with all of its processes; without effect on one that has ended."""
        ...


def follow(
    context: dg.AssetExecutionContext,
    kind: str,
    job: Job,
    start: Callable[[Mapping[str, str]], Running],
) -> dg.PipesClientCompletedInvocation:
    """Run a job to its end, telling each change of its state; ends it when the run is cancelled. Raises FailedError.

    `start` hands the job over, with what is in its environment beside its own.
    """
    messages = dg.PipesFileMessageReader(str(job.folder / "messages.jsonl"))
    with dg.open_pipes_session(context, dg.PipesEnvContextInjector(), messages) as session:
        running = start(session.get_bootstrap_env_vars())
        context.log.info(f"{kind} job {running.id}; its files are in {job.folder}")
        reported_state = ""
        failed = None
        heard = time.monotonic()
        try:
            while failed is None:
                try:
                    state, failed = running.state()
                    heard = time.monotonic()
                except FailedError as e:
                    if isinstance(e, JobError) or time.monotonic() - heard > SILENCE_S:
                        raise
                    state = f"not known just now ({e})"
                if state != reported_state:
                    reported_state = state
                    context.log.info(reported_state)
                time.sleep(POLL_S if failed is None else 0)
        # Cancelled, or the cluster is out of reach: no job is left that nobody looks at
        except BaseException:
            context.log.info(f"ending the {kind} job {running.id}")
            running.cancel()
            raise
    if failed:
        raise JobError(f"{kind} job {running.id} {reported_state}", running.written())
    facts = {"job": f"{kind} {running.id}", "last_lines": block(last_lines(running.written()))}
    return dg.PipesClientCompletedInvocation(session, metadata=facts)


def torchrun(
    python: str,
    arguments: Sequence[str],
    processes: int,
    nodes: int = 1,
    endpoint: str = "",
    job: str = "",
    first: bool | None = None,
) -> list[str]:
    """The command of one machine. With several, `endpoint` is HOST:PORT of the first one, and all give the same `job`.

    `first`: is this that machine? None: torchrun finds out by the host's name; an address alone does not tell it.
    """
    if nodes == 1:
        meeting = ["--standalone"]
    else:
        rendezvous = ["--rdzv-backend", "c10d", "--rdzv-endpoint", endpoint, "--rdzv-id", job]
        host_setting = "" if first is None else f",is_host={first}"
        meeting = [
            "--nnodes",
            str(nodes),
            *rendezvous,
            "--rdzv-conf",
            f"join_timeout={JOIN_S}{host_setting}",
        ]
    start = [python, "-m", "torch.distributed.run", "--nproc-per-node", str(processes), *meeting]
    return [*start, "-m", "proccorpus", *arguments]


def job_name(*parts: str) -> str:
    """A name that every launcher takes: at most 52 characters of a-z, 0-9 and hyphens."""
    return re.sub(r"[^a-z0-9]+", "-", "-".join(parts).lower()).strip("-")[:52].rstrip("-")


def why(written: str) -> str:
    """What the end of a job's output says is wrong: the command line's own error, else the very last line."""
    errors = ERROR.findall(written)
    if errors:
        return errors[-1]
    return (written.splitlines() or ["it has written nothing"])[-1]


def block(text: str) -> dg.MetadataValue:
    return dg.MetadataValue.md(f"```\n{text}\n```")
