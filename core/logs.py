"""What long work says while it goes on; and the end of what a program wrote: enough to say why it failed."""

from collections.abc import Callable
from contextvars import ContextVar
from pathlib import Path

SHOWN_LINES = 40  # of a failed program's output
SEARCHED_LINES = 400  # torchrun has much to say after what went wrong
TAIL_BYTES = 64 << 10
# Called with what goes on, how much of it is done, of how much, and a word on it; commands listen
TOLD: ContextVar[Callable[..., None]] = ContextVar("TOLD", default=lambda name, done=0, of=None, detail="": None)


def end_of(path: Path) -> str:
    """The last lines of a log that are not empty; '' where there is none yet."""
    if not path.exists():
        return ""
    with path.open("rb") as f:
        f.seek(max(0, path.stat().st_size - TAIL_BYTES))
        return last_lines(f.read().decode(errors="replace"), SEARCHED_LINES)


def last_lines(text: str, count: int = SHOWN_LINES) -> str:
    """The last lines of a text, without those that are empty."""
    lines = [line.rstrip() for line in text.splitlines() if line.strip()]
    return "\n".join(lines[-count:])
