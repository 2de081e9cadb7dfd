"""What commands share: options, the workspace they work on, and how they speak."""

import getpass
import os
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from core.errors import FailedError, UserError
from core.paths import DEFAULT_WORKSPACE, Workspace

if TYPE_CHECKING:
    from collections.abc import Mapping

    from warehouse.lake import Lake
    from warehouse.releases import Release
    from warehouse.releases.targets import OutgoingFile

DONE, FAILED, USAGE, INTERRUPTED = 0, 1, 2, 130  # exit codes
WorkspaceOption = Annotated[
    str, typer.Option("--workspace", envvar="PROCCORPUS_WORKSPACE", help="Folder that holds the corpus.")
]
FormatOption = Annotated[Literal["table", "json"], typer.Option("--format", help="table for people, json for scripts.")]
WorkersOption = Annotated[int | None, typer.Option("--workers", min=1, help="Processes; default: one per core.")]
RevisionOption = Annotated[str | None, typer.Option("--revision", help="Commit or branch of a dataset on a hub.")]
DataFormatOption = Annotated[
    str | None, typer.Option("--as", help="The data's format, such as lerobot or hdf5; default: detected.")
]
MinConfidenceOption = Annotated[
    float | None,
    typer.Option("--min-confidence", min=0, max=1, help="Leave out labels with a lower confidence."),
]
MinNameConfidenceOption = Annotated[
    float | None,
    typer.Option(
        "--min-name-confidence", min=0, max=1, help="Leave out the step names of labels with a lower confidence."
    ),
]
YesOption = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask before deleting.")]


def space_at(text: str) -> Workspace:
    if "://" in text:
        raise UserError(f"--workspace {text}: this version keeps workspaces in local folders")
    return Workspace(Path(text).resolve())


def lake_at(workspace: str) -> "Lake":
    """The lake of an existing workspace, to write to."""
    from warehouse.lake import Lake

    space = space_at(workspace)
    return Lake(space, read_only=not space.exists())  # which refuses, rather than make a workspace


def lake_to_read(workspace: str) -> "Lake":
    """The lake of an existing workspace, to read, by now with the tables and views that this version has.

    Who may not write there reads it as it is.
    """
    from warehouse.lake import Lake

    space = space_at(workspace)
    if os.access(space.lock if space.lock.exists() else space.root, os.W_OK):
        lake_at(workspace).con.close()
    return Lake(space, read_only=True)


def open_release(workspace: str, name: str | None) -> "tuple[Workspace, Lake, Release]":
    """An existing workspace's lake and one of its releases (the newest without a name)."""
    from warehouse.lake import Lake, open_lake
    from warehouse.releases import get_release

    space = space_at(workspace)
    Lake(space, read_only=True)
    lake = open_lake(space)
    return space, lake, get_release(lake, name)


def say(text: str) -> None:
    print(text, flush=True)


def say_next(steps: "Mapping[str, str]", workspace: str) -> None:
    """How to go on: what, and the command for it (without the program's name)."""
    option = "" if workspace == DEFAULT_WORKSPACE else f" --workspace {shlex.quote(workspace)}"
    widest = max(map(len, steps))
    for i, (what, command) in enumerate(steps.items()):
        say(f"{'Next:' if i == 0 else '     '} {what.ljust(widest)}   proccorpus {command}{option}")


def counted(number: int, what: str) -> str:
    """A number with its unit. Example: counted(4216, "frame") == "4,216 frames"."""
    return f"{number:,} {what}{'' if number == 1 else 's'}"


def confirm(question: str, *, yes: bool) -> None:
    """Ask before something is deleted, unless --yes said so. Raises UserError: no; or nobody is there to answer."""
    if yes:
        return
    if not sys.stdin.isatty():
        raise UserError(f"{question} Nobody can answer here: give --yes")
    if not typer.confirm(question, err=True):
        raise FailedError("nothing was deleted")


def episode_list(text: str | None) -> tuple[int, ...] | None:
    """The numbers of a list such as '0,1,5-9', ends included. Raises UserError.

    Example: episode_list("0,7-9") == (0, 7, 8, 9).
    """
    if text is None:
        return None
    numbers: set[int] = set()
    for part in text.split(","):
        # A single number is a range from itself to itself
        first, dash, last = part.strip().partition("-")
        if not dash:
            last = first
        if not first.isdecimal() or not last.isdecimal() or int(last) < int(first):
            raise UserError(f"--episodes {text}: {part.strip()!r} is not a number or a range such as 5-9")
        numbers.update(range(int(first), int(last) + 1))
    return tuple(sorted(numbers))


def whoami() -> str:
    """The name of who runs this; `somebody` where the system has none."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return "somebody"


def tell_sent(item: "OutgoingFile") -> None:
    if sys.stderr.isatty():
        print(f"sent {item.path}", file=sys.stderr)


def check_data_format(name: str | None) -> None:
    from ingest.formats import FORMAT_NAMES

    if name is not None and name not in FORMAT_NAMES:
        raise UserError(f"unknown format {name!r} of data; --as knows {', '.join(FORMAT_NAMES)}")


def check_source(source: str, revision: str | None) -> None:
    if "://" not in source and not Path(source).exists():
        raise UserError(f"no such file or folder: {source}")
    if revision and not source.startswith("hf://"):
        raise UserError(f"--revision needs a dataset on the hub (hf://owner/name), not {source}")
