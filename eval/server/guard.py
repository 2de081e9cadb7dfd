"""What stands before the application: who may ask, how much and how slowly. Nothing of a body is read before that."""

import asyncio
import time
from collections.abc import Callable
from contextlib import suppress

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from eval.server.access import Access
from eval.server.limits import Limits, Refused

LINGER_PAUSE_S = 0.01  # between two pieces of it
LINGER_S = 2.0  # that a refused client's body is read and dropped, so that it sees the answer and no broken connection
NOT_READ = 499  # of answers that their client did not read, in the metrics


class NotReadError(Exception):
    """A client does not read its answer."""


class Guard:
    """ASGI middleware: checks access, bounds a body's bytes and time and all bodies together, and closes connections
    whose request was answered before it was read."""

    def __init__(
        self, app: ASGIApp, access: Access, limits: Limits, observe: Callable[[Scope, int, float], None]
    ) -> None:
        self.app, self.access, self.limits, self.observe = app, access, limits, observe
        self.bodies_bytes = 0  # of all requests under way

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        headers = dict(scope["headers"])
        body = _Body(self, receive, headers)
        started, status = time.perf_counter(), 500

        async def answer(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                if not body.whole:
                    message["headers"] = [*message.get("headers", ()), (b"connection", b"close")]
            last = message["type"] == "http.response.body" and not message.get("more_body", False)
            if last and not body.whole:
                await self._send(send, {**message, "more_body": True})
                await body.drop()
                message = {"type": "http.response.body", "body": b""}
            await self._send(send, message)

        try:
            try:
                self.access.check(scope["path"], headers)
                body.check_announced()
            except Refused as e:
                await e.answer(scope["path"])(scope, receive, answer)
            else:
                await self.app(scope, body.receive, answer)
        except NotReadError:
            status = NOT_READ  # the connection ends with an answer that is not whole
        finally:
            self.bodies_bytes -= body.counted
            self.observe(scope, status, time.perf_counter() - started)

    async def _send(self, send: Send, message: Message) -> None:
        """Raises NotReadError where the client does not take it."""
        try:
            async with asyncio.timeout(self.limits.body_timeout_s):
                await send(message)
        except TimeoutError:
            raise NotReadError from None


class _Body:
    """A request's body on its way in."""

    def __init__(self, guard: Guard, receive: Receive, headers: dict[bytes, bytes]) -> None:
        self.guard, self._receive = guard, receive
        self.announced = headers.get(b"content-length")
        self.whole = b"transfer-encoding" not in headers and self.announced in (None, b"0")
        self.counted = 0  # bytes, held against the bound of all bodies
        self.deadline = asyncio.get_running_loop().time() + guard.limits.body_timeout_s

    def check_announced(self) -> None:
        if self.announced is not None and int(self.announced) > self.guard.limits.max_body_bytes:
            self._too_large()

    async def receive(self) -> Message:
        try:
            # After the whole body, a message only tells that the client has gone: waiting for it has no end.
            async with asyncio.timeout_at(None if self.whole else self.deadline):
                message = await self._receive()
        except TimeoutError:
            limit = self.guard.limits.body_timeout_s
            raise Refused(408, "too_slow", f"the body was not complete within {limit:g} s") from None
        if message["type"] == "http.disconnect":
            self.whole = True
            return message
        self._count(len(message.get("body", b"")))
        self.whole = not message.get("more_body", False)
        return message

    def _count(self, size: int) -> None:
        self.counted += size
        self.guard.bodies_bytes += size
        if self.counted > self.guard.limits.max_body_bytes:
            self._too_large()
        if self.guard.bodies_bytes > self.guard.limits.max_bodies_bytes:
            raise Refused(503, "busy", "too much is being uploaded at once; try again", 1)

    def _too_large(self) -> None:
        raise Refused(413, "body_too_large", f"the body has more than {self.guard.limits.max_body_bytes} bytes")

    async def drop(self) -> None:
        """Read on and keep nothing, for a while and not too fast: others wait for this thread."""
        with suppress(TimeoutError):
            async with asyncio.timeout(LINGER_S):
                while not self.whole:
                    await asyncio.sleep(LINGER_PAUSE_S)
                    message = await self._receive()
                    self.whole = message["type"] == "http.disconnect" or not message.get("more_body", False)
