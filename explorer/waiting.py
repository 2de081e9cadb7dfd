"""Work that takes longer than a page should: it stops when the browser that asked for it goes away."""

import asyncio
import threading
from collections.abc import Callable

from fastapi import Request
from starlette.concurrency import run_in_threadpool


async def while_wanted[T](request: Request, work: Callable[[Callable[[], bool]], T]) -> T:
    """The result of `work` in a thread; it is given a function that tells whether nobody waits for it any more."""
    gone = threading.Event()
    running = asyncio.ensure_future(run_in_threadpool(work, gone.is_set))
    while not (await asyncio.wait({running}, timeout=0.1))[0]:
        if await request.is_disconnected():
            gone.set()
    return running.result()
