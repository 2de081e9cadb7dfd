"""The server as a process: until Ctrl-C or SIGTERM, and then to the end of the requests under way."""

from collections.abc import Iterator
from contextlib import contextmanager

import uvicorn
from fastapi import FastAPI

from eval.server.guard import guarded_protocol
from eval.server.limits import Limits

KEEP_ALIVE_S = 30


class ServeError(Exception):
    """A server that cannot be started: why, and what to do."""


class _Server(uvicorn.Server):
    """uvicorn's, but a signal that asked it to end is not raised once more after it has."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        with super().capture_signals():
            yield
            self._captured_signals.clear()

    def __init__(self, config: uvicorn.Config, ready: str) -> None:
        super().__init__(config)
        self.ready = ready

    async def startup(self, sockets: list | None = None) -> None:
        await super().startup(sockets)
        for server in self.servers:
            for socket in server.sockets:
                print(self.ready.format(port=socket.getsockname()[1]), flush=True)


def serve(app: FastAPI, host: str, port: int, limits: Limits) -> None:
    """Answers until a signal ends it; prints its address when it listens. Port 0: a free one. Raises ServeError."""
    config = uvicorn.Config(
        app,
        host=host,
        port=port,
        http=guarded_protocol(limits),
        ws="none",
        log_level="warning",
        access_log=False,
        server_header=False,
        timeout_keep_alive=KEEP_ALIVE_S,
        timeout_graceful_shutdown=round(limits.shutdown_s),
        limit_concurrency=limits.max_connections,
        backlog=limits.max_connections,
    )
    shown = f"[{host}]" if ":" in host else host
    server = _Server(config, f"listening on http://{shown}:{{port}}")
    try:
        server.run()
    except SystemExit as e:  # how uvicorn says that it could not begin; its log has told why
        raise ServeError(f"cannot listen on {host}:{port}: is the port taken?") from e
