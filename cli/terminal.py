"""What reaches a terminal: texts of a dataset are shown there and must not command it; colours; exit codes."""

import io
import os
import re
import sys
from contextlib import suppress
from contextvars import ContextVar
from typing import Any, Literal

from core.errors import without_secrets
from core.logs import as_json, is_json
from core.paths import DEFAULT_WORKSPACE
from core.values import MARKS, escaped

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
