"""The wall round what decodes a stranger's bytes: so much memory, so much time, and no more.

A small file may claim anything, and decoders believe it. Nothing here reads claims. The kernel
refuses memory, and the decoder says so, by its own error or by MemoryError. It ends a process that
stays in some work for too long, wherever that is, and who started the process goes on without that
work: a command from its beginning, a server with the next.
"""

import ctypes
import faulthandler
import os
import pickle
import resource
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from functools import partial
from hashlib import sha256
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path
from threading import Lock, current_thread, main_thread
from typing import Any, Self

from core.files import ScratchFolder

_changing = Lock()
_walls: list[int] = []  # bytes of data that this process may hold, of all that stand
_usual = resource.getrlimit(resource.RLIMIT_DATA)
NOTES = "PROCCORPUS_NOTES"  # variable of processes that may be ended: the folder for what they stayed in
LATE_S = 2.0  # what a look between two pictures would have ended by then
WAITING = 20  # seconds for each of CPU
ENDING = (signal.SIGPROF, signal.SIGALRM)
TOO_MUCH = (MemoryError, TimeoutError, ChildProcessError)  # of work in a process of its own
POLL_S = 0.1
END_S = 5.0
PR_SET_PDEATHSIG = 1
_noted = -1  # descriptor of the note on the work under way


@contextmanager
def memory_wall(num_bytes: int) -> Iterator[None]:
    """As long as it stands, this process, with all its threads, can hold `num_bytes` more than now.
    The nearest of several walls counts. Raises nothing of its own."""
    limit_bytes = held_bytes("VmData") + num_bytes
    with _changing:
        _walls.append(limit_bytes)
        _keep_to_walls()
    try:
        yield
    finally:
        with _changing:
            _walls.remove(limit_bytes)
            _keep_to_walls()


def _keep_to_walls() -> None:
    soft, hard = _usual
    limits = _walls if soft == resource.RLIM_INFINITY else [*_walls, soft]
    resource.setrlimit(resource.RLIMIT_DATA, (min(limits, default=soft), hard))


def held_bytes(name: str) -> int:
    """Bytes that this process holds, by a line of /proc/self/status. Raises OSError."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(f"{name}:"):
            return int(line.split()[1]) << 10
    raise OSError(f"this system does not tell {name}")


@contextmanager
def time_wall(name: str) -> Iterator[Callable[[float], AbstractContextManager[None]]]:
    """Work of that name, in parts: what this yields gives each the seconds of CPU that it may take.
    Where it takes more, or WAITING times as long, the kernel ends the process, if that may be ended
    (NOTES) and this is its main thread; `is_left_out` then knows the work. Of walls within one
    another the innermost counts."""
    path = _note(name)
    if path is None or current_thread() is not main_thread():
        yield lambda cpu_s: nullcontext()
        return
    path.parent.mkdir(exist_ok=True)
    with path.open("ab") as note:
        try:
            yield partial(_part, note.fileno())
        finally:
            path.unlink(missing_ok=True)


@contextmanager
def _part(note: int, cpu_s: float) -> Iterator[None]:
    most_s = max(0.0, cpu_s) + LATE_S
    outer = _set_timers(note, most_s, WAITING * most_s)
    try:
        yield
    finally:
        _set_timers(*outer)


def _set_timers(note: int, cpu_s: float, wall_s: float) -> tuple[int, float, float]:
    """What this replaces."""
    global _noted
    if note not in (-1, _noted):
        for number in ENDING:
            # Without Python, whose lock a decoder may hold: where every thread is goes into the note
            faulthandler.register(number, note, chain=True)
    cpu_left_s, _ = signal.setitimer(signal.ITIMER_PROF, cpu_s)
    wall_left_s, _ = signal.setitimer(signal.ITIMER_REAL, wall_s)
    former_note = _noted
    _noted = note
    return former_note, cpu_left_s, wall_left_s


def _note(name: str) -> Path | None:
    folder = os.environ.get(NOTES)
    if folder:
        return Path(folder, sha256(name.encode(errors="surrogatepass")).hexdigest()[:32])
    return None


def is_left_out(name: str) -> bool:
    """Was a process ended that stayed in the work of that name?"""
    path = _note(name)
    return path is not None and path.is_file() and path.stat().st_size > 0


def num_left_out() -> int:
    """In how much different work processes stayed for too long."""
    folder = os.environ.get(NOTES)
    if folder:
        return sum(note.is_file() and note.stat().st_size > 0 for note in Path(folder).glob("*"))
    return 0


def begin_anew() -> None:
    """From here on this process waits for a copy of itself, and ends as that does; after one that a
    wall of time has ended for another, which leaves that work out. Only copies return."""
    scratch = ScratchFolder()
    num_skipped = 0
    os.environ[NOTES] = str(scratch.path)
    heard = {signal.SIGCHLD, signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGTSTP}
    signal.pthread_sigmask(signal.SIG_BLOCK, heard)
    while (copy := os.fork()) != 0:
        while (ended := os.waitpid(copy, os.WNOHANG))[0] == 0:
            received = signal.sigwait(heard)
            if received == signal.SIGTSTP:  # Ctrl-Z; then until the shell lets this process go on
                os.killpg(copy, signal.SIGSTOP)
                os.kill(os.getpid(), signal.SIGSTOP)
                os.killpg(copy, signal.SIGCONT)
            elif received != signal.SIGCHLD:
                os.kill(copy, received)
        code = os.waitstatus_to_exitcode(ended[1])
        if code >= 0 or num_left_out() == num_skipped:
            scratch.close()
            os._exit(code if code >= 0 else 128 - code)
        num_skipped = num_left_out()
        print(
            "note: something takes too long to read: begun anew without it",
            file=sys.stderr,
            flush=True,
        )
    # In a group of its own, so that Ctrl-C reaches it once; a terminal would stop such a process that writes
    os.setpgid(0, 0)
    signal.signal(signal.SIGTTOU, signal.SIG_IGN)
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, heard)


class Walled:
    """A process of its own that does what it is asked, with limits; started anew where it was ended.

    begin: what it does first. memory_bytes: beside what it holds then; None: no wall. preload: a
    module that all of one program's begin with; without it they are copies of this process, which
    costs nothing, where that has one thread (what others hold would stay locked). Not for several
    threads at once.
    """

    def __init__(
        self,
        memory_bytes: int | None,
        preload: str | None = None,
        begin: Callable[[], None] | None = None,
    ) -> None:
        self._asked = (memory_bytes, begin)
        self._preload = preload
        self._process: Any = None
        self.start()

    def start(self) -> None:
        """Start it where it does not run."""
        if self._process and self._process.is_alive():
            return
        self.close()
        may_copy = not self._preload and len(os.listdir("/proc/self/task")) == 1
        context: Any = get_context(
            "forkserver" if self._preload else "fork" if may_copy else "spawn"
        )
        if self._preload:
            context.set_forkserver_preload(["__main__", self._preload])
        self._channel, theirs = context.Pipe()
        args = theirs, self._channel if may_copy else None, *self._asked
        self._process = context.Process(target=_serve, args=args, daemon=True)
        self._process.start()
        theirs.close()

    def __call__[T](
        self,
        work: Callable[..., T],
        *args: Any,
        wall_s: float,
        cpu_s: float | None = None,
        given_up: Callable[[], bool] = lambda: False,
    ) -> T:
        """What `work(*args)` returns there, arrays read-only; cpu_s None: within what an earlier
        call left. Raises what it raises, and one of TOO_MUCH where it took more, was given up, or
        ended its process."""
        self.start()
        try:
            self._channel.send((work, args, wall_s, cpu_s))
            ends_s = time.monotonic() + wall_s
            while given_up() or not self._channel.poll(
                max(0.0, min(POLL_S, ends_s - time.monotonic()))
            ):
                if given_up() or time.monotonic() > ends_s:
                    raise TimeoutError(
                        f"takes more than {wall_s:g} s, or nobody waits for it any more"
                    )
            has_failed, value = pickle.loads(
                self._channel.recv_bytes(), buffers=iter(self._channel.recv_bytes, None)
            )
        except (EOFError, ConnectionError) as e:
            self._process.join(END_S)
            code = self._process.exitcode or 0
            self.close()
            ending = signal.Signals(-code).name if code < 0 else f"exit code {code}"
            raise ChildProcessError(f"ended its process ({ending})") from e
        except BaseException:
            self.close()
            raise
        if not has_failed:
            return value
        if isinstance(value, MemoryError):  # what it holds is not let go
            self.close()
        raise value

    def close(self) -> None:
        """End it, whatever it does."""
        if self._process and self._process.pid:  # where the system had one to give
            self._process.kill()
            self._process.join()
            self._channel.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _serve(
    channel: Connection,
    other_end: Connection | None,
    memory_bytes: int | None,
    begin: Callable[[], None] | None,
) -> None:
    """In the process. `other_end`: the asker's end, which a copy has, too."""
    if other_end is not None:
        other_end.close()
    # A terminal sends Ctrl-C to the asker as well, who ends this process
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    for number in (signal.SIGTERM, *ENDING):
        signal.signal(number, signal.SIG_DFL)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if begin:
        begin()
    with (
        nullcontext() if memory_bytes is None else memory_wall(memory_bytes),
        suppress(EOFError, ConnectionError),
    ):
        while True:
            work, args, wall_s, cpu_s = channel.recv()
            signal.setitimer(signal.ITIMER_REAL, wall_s + LATE_S)  # the asker may be gone
            if cpu_s is not None:
                signal.setitimer(signal.ITIMER_PROF, cpu_s)  # of all its threads
            try:
                answer = False, work(*args)
            except Exception as e:
                answer = True, e
            signal.setitimer(signal.ITIMER_REAL, 0)
            arrays = list[
                pickle.PickleBuffer
            ]()  # behind the answer, so that nobody copies them into it and out again
            channel.send_bytes(pickle.dumps(answer, 5, buffer_callback=arrays.append))
            for array in arrays:
                channel.send_bytes(array.raw())


class Pool[W: Walled]:
    """Such processes for the threads of a server: as many as are asked at once, each kept for the next."""

    def __init__(self, make: Callable[[], W]) -> None:
        self._make = make
        self._idle = list[W]()

    @contextmanager
    def one(self) -> Iterator[W]:
        """A process of one's own."""
        try:
            process = self._idle.pop()
        except IndexError:
            process = self._make()
        try:
            yield process
        finally:
            self._idle.append(process)

    def close(self) -> None:
        """End those that are idle."""
        while self._idle:
            self._idle.pop().close()
