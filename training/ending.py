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
    """Within it a first signal is only noted, and a second one does what it would have done. When
    it is left, what the noted signal would have done comes to pass. Outside the main thread, which
    alone hears signals, nothing is noted."""
    request_to_end = AskedToEnd()
    if threading.current_thread() is not threading.main_thread():
        yield request_to_end
        return

    def note(number: int, frame: FrameType | None) -> None:
        if request_to_end:
            signal.signal(number, former_handlers[signal.Signals(number)])
            signal.raise_signal(number)
        request_to_end.signal = number

    former_handlers = {
        number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)
    }
    for number in former_handlers:
        signal.signal(number, note)
    try:
        yield request_to_end
    finally:
        for number, handler in former_handlers.items():
            signal.signal(number, handler)
        if request_to_end:
            signal.raise_signal(request_to_end.signal)
