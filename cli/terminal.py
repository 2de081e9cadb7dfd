"""What reaches a terminal: names and texts of a dataset are shown there, and must not command it."""

import io
import re
import sys

# ESC begins commands that set the clipboard, the title, or what a key types. Our own tables and progress bars use no
# more than colours and moves of the cursor (ESC [)
COMMAND = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1a\x1c-\x1f\x7f-\x9f]|\x1b(?!\[[0-9;?]*[A-Za-z])")
ANY_COMMAND = re.compile(rf"{COMMAND.pattern}|\x1b")


class ShownText(io.TextIOWrapper):
    """A text stream that writes characters which would command a terminal as JSON does, such as \\u001b."""

    def write(self, text: str, /) -> int:
        super().write(COMMAND.sub(_escaped, text))
        return len(text)


def shown(text: str) -> str:
    """A text of a dataset's without any command at all, also none for colours."""
    return ANY_COMMAND.sub(_escaped, text)


def guard_terminal() -> None:
    """Put ShownText in the place of standard output and errors; characters that their locale lacks are escaped."""
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        # Only what Python itself made: a stream that somebody put in its place is theirs
        if type(stream) is io.TextIOWrapper:
            line_buffering, encoding = stream.line_buffering, stream.encoding
            stream.flush()
            text = ShownText(stream.detach(), encoding, "backslashreplace", line_buffering=line_buffering)
            setattr(sys, name, text)


def _escaped(found: re.Match[str]) -> str:
    return f"\\u{ord(found[0]):04x}"
