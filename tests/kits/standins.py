"""Stand-ins for what some inputs make outside software do: they sleep, stay busy, take memory or
end their process."""

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


def take_memory(num_bytes: int) -> list[bytearray]:
    """In parts, as a decoder does. Raises MemoryError."""
    part = 1 << 26  # smaller ones may be what the heap of earlier tests has left free
    return [bytearray(b"x") * part for _ in range(-(-num_bytes // part))]


def take_a_gigabyte(*_: object) -> list[bytearray]:
    return take_memory(1 << 30)


def end_by_signal() -> None:
    os.kill(os.getpid(), signal.SIGSEGV)
