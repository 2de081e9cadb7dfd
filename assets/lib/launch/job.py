"""A training job, and what every launcher has to offer.

The job is `proccorpus train` under torchrun, the same everywhere. The workspace has to lie where all of its machines
see it under one path: corpus, checkpoints and the job's own folder are there. A job that its cluster begins again goes
on from the newest checkpoint: its arguments say --auto-resume.
"""

import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from core.logs import last_lines

RENDEZVOUS_PORT = 29400
JOIN_S = 1800  # so long machines wait for one another: an image of 10 GB comes at another time to each
ERROR = re.compile(r"^error: (.*)$", re.MULTILINE)  # as our command line ends when something is wrong


class LaunchError(Exception):
    """A job that could not be handed over, or can no longer be asked about: which, why, what to do."""


class JobError(LaunchError):
    """A job that ended badly; `tail` is the end of what it wrote, as far as the error that it told."""

    def __init__(self, what: str, written: str) -> None:
        super().__init__(f"{what}: {why(written)}")
        told = list(ERROR.finditer(written))
        self.tail = last_lines(written[: told[-1].end()] if told else written)


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


@dataclass(frozen=True)
class State:
    """What a launcher says of a job; `failed` is None until it has ended."""

    text: str
    failed: bool | None = None


class Running(Protocol):
    """A job that was handed over. Its methods raise LaunchError when its cluster cannot be asked."""

    @property
    def id(self) -> str: ...

    def state(self) -> State: ...

    def written(self) -> str:
        """The end of its output, SEARCHED_LINES at most."""
        ...

    def cancel(self) -> None:
        """End it with all of its processes; without effect on one that has ended."""
        ...


class Launcher(Protocol):
    """A place where jobs run."""

    @property
    def kind(self) -> str: ...

    def start(self, job: Job, environment: Mapping[str, str]) -> Running:
        """Hand a job over; `environment` is what it gets beside its own. Raises LaunchError."""
        ...


def torchrun(
    python: str,
    arguments: Sequence[str],
    processes: int,
    nodes: int = 1,
    at: str = "",
    job: str = "",
    first: bool | None = None,
) -> list[str]:
    """The command of one machine. With several, `at` is HOST:PORT of the first one, and all give the same `job`.

    `first`: is this that machine? None: torchrun finds out by the host's name; an address alone does not tell it.
    """
    if nodes == 1:
        meeting = ["--standalone"]
    else:
        where = ["--rdzv-backend", "c10d", "--rdzv-endpoint", at, "--rdzv-id", job]
        more = "" if first is None else f",is_host={first}"
        meeting = ["--nnodes", str(nodes), *where, "--rdzv-conf", f"join_timeout={JOIN_S}{more}"]
    start = [python, "-m", "torch.distributed.run", "--nproc-per-node", str(processes), *meeting]
    return [*start, "-m", "proccorpus", *arguments]


def job_name(*parts: str) -> str:
    """A name that every launcher takes: at most 52 characters of a-z, 0-9 and hyphens."""
    return re.sub(r"[^a-z0-9]+", "-", "-".join(parts).lower()).strip("-")[:52].rstrip("-")


def exports(environment: Mapping[str, str]) -> list[str]:
    """Lines of a shell script."""
    return [f"export {name}={shlex.quote(value)}" for name, value in sorted(environment.items())]


def why(written: str) -> str:
    """What the end of a job's output says is wrong: the command line's own error, else the very last line."""
    told = ERROR.findall(written)
    return told[-1] if told else (written.splitlines() or ["it has written nothing"])[-1]
