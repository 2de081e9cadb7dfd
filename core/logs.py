"""What long work says while it goes on, as text or as JSON; and the end of what a program wrote: why it failed."""

import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

SHOWN_LINES = 40  # of a failed program's output
SEARCHED_LINES = 400  # torchrun has much to say after what went wrong
TAIL_BYTES = 64 << 10
# Called with what goes on, how much of it is done, of how much, and a word on it; commands listen
TOLD: ContextVar[Callable[..., None]] = ContextVar(
    "TOLD", default=lambda name, done=0, of=None, detail="": None
)
# What lines of JSON are about: the build of this process, for all its threads, and what `about` says
RUN: dict[str, Any] = dict.fromkeys(("run", "dataset", "chunk", "stage"))
ABOUT: ContextVar[dict[str, Any] | None] = ContextVar("ABOUT", default=None)


def is_json() -> bool:
    """Does PROCCORPUS_LOG ask for lines of JSON?"""
    return os.environ.get("PROCCORPUS_LOG") == "json"


@contextmanager
def about(**fields: Any) -> Iterator[None]:
    """What is logged inside is about a `dataset`, a `chunk`, a `stage`."""
    token = ABOUT.set(fields)
    try:
        yield
    finally:
        ABOUT.reset(token)


def as_json(text: str, level: str = "", **fields: Any) -> str:
    """A line of a log as JSON; `run`, `dataset`, `chunk` and `stage` are null where it is about none."""
    begins = text.partition(":")[0]
    level = level or (begins if begins in ("error", "warning") else "info")
    time = datetime.now(UTC).isoformat(timespec="milliseconds")
    return json.dumps(
        {"time": time, "level": level, **RUN, **(ABOUT.get() or {}), **fields, "message": text}
    )


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
