"""Work that takes longer than a page should: it stops when the browser that asked goes away, and with the server."""

import asyncio
import threading
from collections.abc import Callable

from fastapi import Request
from starlette.concurrency import run_in_threadpool


async def while_wanted[T](request: Request, work: Callable[[Callable[[], bool]], T]) -> T:
    """The result of `work` in a thread; it is given a function that tells whether nobody waits for it any more."""
    gone = threading.Event()
    running = asyncio.ensure_future(run_in_threadpool(work, gone.is_set))
    try:
        while not (await asyncio.wait({running}, timeout=0.1))[0]:
            if request.app.state.is_ending() or await request.is_disconnected():
                gone.set()
        return running.result()
    finally:
        # A server that has waited long enough cancels what waits here, and not the thread
        gone.set()
