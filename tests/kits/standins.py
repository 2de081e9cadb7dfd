"""Stand-ins for what some inputs make outside software do: they sleep, stay busy, take memory or
end their process."""

import mmap
import os
import signal
import time

LONG_S = 15.0  # longer than any limit of a test


def sleep(*_: object) -> None:
    time.sleep(LONG_S)


def sleep_for_minutes(*_: object) -> None:
    """Longer than a test is patient."""
    time.sleep(900)


def stay_busy(*_: object, cpu_s: float = LONG_S) -> None:
    """Python runs beside it."""
    ends_s = time.thread_time() + cpu_s
    while time.thread_time() < ends_s:
        pass


def stay_in_one_call() -> None:
    """As a decoder that keeps Python's lock: nothing else of the process runs, and no signal's
    handler."""
    ends_s = time.thread_time() + LONG_S
    while time.thread_time() < ends_s:
        sum(range(400_000_000))


def take_memory(num_bytes: int) -> mmap.mmap:
    """Filled, and none that the heap of earlier tests has left free. Raises MemoryError."""
    try:
        memory = mmap.mmap(-1, num_bytes, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    except OSError as e:
        raise MemoryError from e
    part = b"x" * (1 << 20)
    for _ in range(num_bytes // len(part)):
        memory.write(part)
    return memory


def take_a_gigabyte(*_: object) -> mmap.mmap:
    return take_memory(1 << 30)


def end_by_signal() -> None:
    os.kill(os.getpid(), signal.SIGSEGV)
