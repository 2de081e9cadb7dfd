"""What commands share: options, the workspace they work on, and how they speak.

A dataset's texts are shown on the terminal and must not command it.
"""

import io
import os
import re
import shlex
import sys
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import suppress
from contextvars import ContextVar
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple

import typer
from typer import Argument, Option

from core.errors import FailedError, UserError, without_secrets
from core.logs import as_json, is_json
from core.paths import DEFAULT_WORKSPACE, Workspace
from core.values import MARKS, escaped
from ingest.formats import FORMAT_NAMES

# Exit codes; PARTIAL: all but sources out of reach, and episodes without an answer; the last two: by Ctrl-C, by
# SIGTERM
DONE = 0
FAILED = 1
USAGE = 2
PARTIAL = 3
INTERRUPTED = 130
ENDED = 143
# ESC begins commands that set the clipboard, the title, or what a key types. Our own tables and progress bars use no
# more than colours and moves of the cursor (ESC [)
COMMAND = re.compile(rf"{MARKS.pattern}|\x1b(?!\[[0-9;?]*[A-Za-z])")
# Tables as records: -x of any command
AS_RECORDS: ContextVar[bool] = ContextVar("AS_RECORDS", default=False)
# One JSON value, and no word beside it
AS_JSON: ContextVar[bool] = ContextVar("AS_JSON", default=False)
# Results and errors alone: -q of any command
QUIET: ContextVar[bool] = ContextVar("QUIET", default=False)
# Errors with their origin: --verbose of any command
VERBOSE: ContextVar[bool] = ContextVar("VERBOSE", default=False)
# As --workspace gave it
WORKSPACE: ContextVar[str] = ContextVar("WORKSPACE", default=DEFAULT_WORKSPACE)
COLOURS = {"bold": "1", "red": "31", "green": "32", "yellow": "33"}
Colour = Literal["bold", "red", "green", "yellow"]


class ShownText(io.TextIOWrapper):
    """A text stream that writes characters which would command a terminal as JSON does, such as \\u001b.

    Of errors, notes and traces it leaves out secrets; what it writes as a result is the corpus' own.
    """

    is_result = True
    lines: list[str] | None = None  # of JSON are written; it holds the beginning of the next one

    def write(self, text: str, /) -> int:
        visible = COMMAND.sub(escaped, text if self.is_result else without_secrets(text))
        if self.lines is not None:
            *whole, last_line = "".join([*self.lines, visible]).split("\n")
            self.lines, visible = (
                [last_line],
                "".join(f"{as_json(line)}\n" for line in whole if line.strip()),
            )
        super().write(visible)
        return len(text)


def has_colours(stream: Any) -> bool:
    """A terminal that shows them, whose user did not say otherwise (NO_COLOR, TERM=dumb)."""
    return stream.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


def painted(text: str, colour: Colour, stream: Any = None) -> str:
    """The text in a colour, where the stream (standard output, if none is given) shows colours."""
    if text and has_colours(stream or sys.stdout):
        return f"\x1b[{COLOURS[colour]}m{text}\x1b[0m"
    return text


def note(text: str) -> None:
    """What is no result, to standard error; nothing where -q asks for quiet."""
    if not QUIET.get():
        print(text, file=sys.stderr, flush=True)


def leave_streams() -> None:
    """Whatever is still written to standard output and errors goes nowhere: who read them went away."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError):
            os.dup2(nowhere, stream.fileno())


def guard_terminal() -> None:
    """Put ShownText in the place of standard output and errors; characters that their locale lacks
    are escaped.

    One that was closed before the start goes nowhere: the next file that is opened would get its
    number otherwise.
    """
    for number, name, mode in ((0, "stdin", "r"), (1, "stdout", "w"), (2, "stderr", "w")):
        if getattr(sys, name) is None:
            with suppress(OSError):
                os.close(number)
            os.open(os.devnull, os.O_RDWR)  # the lowest number that is free: this one
            setattr(sys, name, open(number, mode, encoding="utf-8", closefd=False))  # noqa: SIM115
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        # Only what Python itself made: a stream that somebody put in its place is theirs
        if type(stream) is io.TextIOWrapper:
            line_buffering = stream.line_buffering
            encoding = stream.encoding
            stream.flush()
            text = ShownText(
                stream.detach(), encoding, "backslashreplace", line_buffering=line_buffering
            )
            text.is_result = name == "stdout"
            text.lines = [] if name == "stderr" and is_json() else None
            setattr(sys, name, text)
            # The original can say nothing any more: how wide the terminal is, is asked of it
            setattr(sys, f"__{name}__", text)


Format = Literal["table", "records", "json"]
FormatOption = Annotated[Format, Option(help="table or records for people, json for scripts.")]
WorkersOption = Annotated[int | None, Option(min=1, help="Processes; default: one per core.")]
UpdateOption = Annotated[
    bool, Option(help="Read hub datasets at their newest commit, not at the last build's.")
]
RevisionOption = Annotated[str | None, Option(help="Commit or branch of a dataset on a hub.")]
MinConfidenceOption = Annotated[
    float | None, Option(min=0, max=1, help="Leave out labels with a lower confidence.")
]
MinNameConfidenceOption = Annotated[
    float | None,
    Option(min=0, max=1, help="Leave out the step names of labels with a lower confidence."),
]
DatasetArgument = Annotated[str, Argument(help="The dataset's name, from status.")]
AuthorOption = Annotated[str | None, Option(help="Your name; default: your user name.")]
CommentOption = Annotated[str, Option(help="Reason.")]
EndpointOption = Annotated[
    list[str] | None,
    Option(help="Base address of an OpenAI-compatible server, ends in /v1; repeatable."),
]
ReleaseOption = Annotated[str | None, Option(help="Release to use; default: the newest.")]
HostOption = Annotated[str, Option(help="Address to listen on.")]
TokenFileOption = Annotated[
    Path | None,
    Option(
        help="File with the token that everybody must show; default: one that the workspace keeps."
    ),
]
NoTokenOption = Annotated[
    bool,
    Option(
        "--no-token",
        help="Ask for no token: every user of this machine may then do everything here.",
    ),
]
PortOption = Annotated[int, Option(min=0, max=65535, help="Port; 0: any free one.")]
SentDryRunOption = Annotated[bool, Option(help="List what would be sent; send nothing.")]
PrivateOption = Annotated[bool, Option(help="Make a new hub repository private.")]
ReplaceOption = Annotated[
    bool, Option(help="Delete what else the place holds; --dry-run counts it.")
]
SetOption = Annotated[list[str] | None, Option("--set", help="A setting, KEY=VALUE; repeatable.")]
YesOption = Annotated[bool, Option("--yes", "-y", help="Do not ask before deleting.")]


Rows = list[dict[str, Any]]
Facts = dict[str, Any]


class Result(NamedTuple):
    """What a command found, as rows or as the facts of one thing, and how it is printed.

    `empty`: what people read where there is no row; `hidden`: columns that are in JSON alone;
    `whole`: the JSON, where it is more than the rows; `lines`: for people; `steps`: how to go on, a
    command by its purpose; `code`: the exit code.
    """

    rows: Rows | Facts | None = None
    empty: str = "No rows."
    hidden: Collection[str] = ()
    whole: Any = None
    lines: Sequence[str] = ()
    steps: Mapping[str, str] | None = None
    code: int = DONE


class Opened(NamedTuple):
    """What a command gets of its workspace: an annotation of a parameter, which --workspace gives."""

    open: Callable[[Workspace], Any]


Space = Annotated[Workspace, Opened(lambda space: space)]
WorkspaceOption = Annotated[
    str, Option(envvar="PROCCORPUS_WORKSPACE", help="Folder that holds the corpus.")
]
# Commands by their words, each a typed function, with what Typer is told of it besides
DECLARED: dict[str, tuple[Callable[..., Any], dict[str, Any]]] = {}


def command[F: Callable[..., Any]](words: str, **settings: Any) -> Callable[[F], F]:
    """Make a command of a typed function; how its parameters and its result are understood:
    cli.commands."""

    def declare(function: F) -> F:
        DECLARED[words] = (function, settings)
        return function

    return declare


def is_setting(field: Any) -> bool:
    """Is a field of a pydantic model given by --set, not by an option of its own?"""
    extra = field.json_schema_extra
    return isinstance(extra, dict) and "is_setting" in extra


def space_at(text: str) -> Workspace:
    """The workspace that --workspace names. Raises UserError."""
    if "://" in text:
        raise UserError(f"--workspace {text}: this version keeps workspaces in local folders")
    return Workspace(Path(text).resolve())


def say(text: str) -> None:
    """Words for people, on standard output; nothing where the result is JSON."""
    if not AS_JSON.get():
        print(text, flush=True)


def warn(lines: Sequence[str], label: str) -> None:
    """Lines to standard error, each after what it is: standard output is the result alone, for
    scripts."""
    for line in lines:
        note(f"{label}: {line}")


def say_next(steps: Mapping[str, str]) -> None:
    """How to go on: what, and the command for it (without the program's name); nothing where -q
    asks for quiet."""
    if QUIET.get():
        return
    workspace = WORKSPACE.get()
    option = "" if workspace == DEFAULT_WORKSPACE else f" --workspace {shlex.quote(workspace)}"
    widest = max(map(len, steps))
    for i, (purpose, command) in enumerate(steps.items()):
        say(
            f"{'Next:' if i == 0 else '     '} {purpose.ljust(widest)}   proccorpus {command}{option}"
        )


def stale_lines(chunks: Mapping[str, int]) -> list[str]:
    """How many chunks of each dataset the next build has to do, in a line; none where there is none."""
    counts = ", ".join(f"{n} of {name}" for name, n in sorted(chunks.items()))
    return [f"Chunks that the next build updates: {counts}."] if chunks else []


def counted(number: int, noun: str) -> str:
    """A number with its unit. Example: counted(4216, "frame") == "4,216 frames"."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def confirm(question: str, *, yes: bool) -> None:
    """Ask before something is deleted, unless --yes said so. Raises UserError: no; or nobody is
    there to answer."""
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
            raise UserError(
                f"--episodes {text}: {part.strip()!r} is not a number or a range such as 5-9"
            )
        numbers.update(range(int(first), int(last) + 1))
    return tuple(sorted(numbers))


EpisodesOption = Annotated[
    tuple[int, ...] | None, Option(help="Only these episodes, such as 0,1,5-9.")
]


def tell_sent(item: Any) -> None:
    if sys.stderr.isatty():
        note(f"sent {item.path}")


def known_format(name: str | None) -> str | None:
    """The format of data that --as names. Raises UserError."""
    if name is not None and name not in FORMAT_NAMES:
        raise UserError(f"unknown format {name!r} of data; --as knows {', '.join(FORMAT_NAMES)}")
    return name


DataFormatOption = Annotated[
    str | None,
    Option(
        "--as",
        callback=known_format,
        help="The data's format, such as lerobot or hdf5; default: detected.",
    ),
]


def check_source(source: str, revision: str | None) -> None:
    if "://" not in source and not Path(source).exists():
        raise UserError(f"no such file or folder: {source}")
    if revision and not source.startswith("hf://"):
        raise UserError(f"--revision needs a dataset on the hub (hf://owner/name), not {source}")
