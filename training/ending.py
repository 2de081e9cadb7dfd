"""A training that is asked to end: SIGTERM (a queue, a cluster) or Ctrl-C. It first writes where it stands."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


class AskedToEnd:
    """Which signal asked this process to end; 0: none yet."""

    signal = 0

    def __bool__(self) -> bool:
        return self.signal > 0


@contextmanager
def noticed() -> Iterator[AskedToEnd]:
    """Within it a first signal is only noted, and a second one does what it would have done. When it is left, what the
    noted signal would have done comes to pass. Outside the main thread, which alone hears signals, nothing is noted."""
    asked = AskedToEnd()
    if threading.current_thread() is not threading.main_thread():
        yield asked
        return

    def note(number: int, frame: FrameType | None) -> None:
        if asked:
            signal.signal(number, before[signal.Signals(number)])
            signal.raise_signal(number)
        asked.signal = number

    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    for number in before:
        signal.signal(number, note)
    try:
        yield asked
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        if asked:
            signal.raise_signal(asked.signal)
