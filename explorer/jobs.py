"""Work that takes longer than a page should: commands of proccorpus, one of each kind at
a time, and threads.
"""

import asyncio
import fcntl
import json
import os
import re
import shlex
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fastapi import Request
from starlette.concurrency import run_in_threadpool

from core.paths import ROOT
from explorer.access import PageError

TAIL_BYTES = 8000  # of a log, for a page
ERROR = re.compile(r"^error: (.+)$", re.MULTILINE)  # as the command line words what went wrong


def program() -> list[str]:
    """This very code, whatever folder the explorer was started in."""
    return [sys.executable, str(ROOT / "proccorpus.py")]


def command_line(arguments: Sequence[str]) -> str:
    """The command as a person would type it."""
    return shlex.join(["proccorpus", *arguments])


@dataclass
class ChildJob:
    """The one process of its kind, which runs or has ended. For use by several threads.

    Its process holds a lock on `<folder>/<name>.lock` as long as it lives: another
    explorer of the workspace starts no second one, and shows how far this one is. It ends
    with the explorer that started it.
    """

    folder: Path
    name: str
    process: subprocess.Popen[bytes] | None = field(default=None, repr=False)
    _starting: threading.Lock = field(default_factory=threading.Lock, repr=False)

    def start(self, arguments: Sequence[str], about: Mapping[str, Any], busy: str) -> None:
        """Run a command of proccorpus; `about` is what pages say of it.

        Raises PageError: `busy`, as one runs; or the workspace cannot be written to.
        """
        with self._starting:
            try:
                self.folder.mkdir(exist_ok=True)
                lock = os.open(self.file("lock"), os.O_RDWR | os.O_CREAT, 0o644)
            except OSError as e:
                raise PageError(f"the workspace cannot be written to: {e.strerror}", 403) from e
            try:
                # The process inherits the open file, and with it the lock
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                self.file("events").unlink(missing_ok=True)
                self.file("json").write_text(json.dumps(dict(about)))
                with self.file("log").open("wb") as log:
                    self.process = subprocess.Popen(
                        [*program(), *arguments],
                        stdin=subprocess.DEVNULL,
                        stdout=log,
                        stderr=subprocess.STDOUT,
                        pass_fds=(lock,),
                    )
            except BlockingIOError as e:
                raise PageError(busy, 409) from e
            finally:
                os.close(lock)

    @property
    def running(self) -> bool:
        """Does it run, started here or by another explorer of the workspace?"""
        if self.process is not None and self.process.poll() is None:
            return True
        with self._starting:
            try:
                lock = os.open(self.file("lock"), os.O_RDWR)
            except OSError:
                return False
            try:
                fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError:
                return True
            finally:
                os.close(lock)
            return False

    @property
    def has_succeeded(self) -> bool:
        """Did the newest one end well, if it was started here?"""
        return self.process is not None and self.process.poll() == 0

    def about(self) -> dict[str, Any]:
        """What was said of the newest one when it was started; empty where none was."""
        with suppress(ValueError):
            return json.loads(self._text("json"))
        return {}

    def events(self) -> list[dict[str, Any]]:
        """The lines of JSON in its events, without one that is not whole yet."""
        events = []
        for line in self._text("events").splitlines():
            with suppress(ValueError):
                events.append(json.loads(line))
        return events

    def log(self) -> str:
        """The end of its log, of at most TAIL_BYTES."""
        return self._text("log")[-TAIL_BYTES:]

    def error(self) -> str:
        """Why the newest one did not come to its end, in the words of its log, where that says so."""
        return "; ".join(ERROR.findall(self.log())) or "it was stopped before it finished"

    def _text(self, kind: str) -> str:
        with suppress(OSError):
            return self.file(kind).read_text(errors="replace")
        return ""

    def file(self, kind: str) -> Path:
        return self.folder / f"{self.name}.{kind}"

    def stop(self) -> None:
        """End it with the explorer; what it has finished by then is kept."""
        with self._starting:
            if self.process is not None and self.process.poll() is None:
                self.process.terminate()
                self.process.wait()


async def while_wanted[T](request: Request, work: Callable[[Callable[[], bool]], T]) -> T:
    """The result of `work` in a thread; it is given a function that tells whether nobody
    waits for it any more.
    """
    is_gone = threading.Event()
    running = asyncio.ensure_future(run_in_threadpool(work, is_gone.is_set))
    try:
        while not (await asyncio.wait({running}, timeout=0.1))[0]:
            if request.app.state.is_ending() or await request.is_disconnected():
                is_gone.set()
        return running.result()
    finally:
        # A server that has waited long enough cancels what waits here, and not the thread
        is_gone.set()
