"""The server as a process: until Ctrl-C or SIGTERM, and then to the end of the requests under way."""

import socket
from collections.abc import Iterator
from contextlib import contextmanager

import uvicorn
from fastapi import FastAPI

from core.connections import ConnectionLimits, guarded_protocol
from core.errors import OperationFailedError
from eval.server.limits import Limits

KEEP_ALIVE_S = 30


class ServeError(OperationFailedError):
    """A server that cannot be started: why, and what to do."""


class _Server(uvicorn.Server):
    """uvicorn's, but it says when it listens, and a signal that asked it to end is not raised again when it has."""

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        for listener in sockets or []:
            host, port = listener.getsockname()[:2]
            print(f"listening on http://{f'[{host}]' if ':' in host else host}:{port}", flush=True)

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        with super().capture_signals():
            yield
            self._captured_signals.clear()


def listen(host: str, port: int, limits: Limits) -> socket.socket:
    """A port of this machine; 0: a free one. Raises ServeError."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family, backlog=limits.max_connections)
    except OSError as e:
        raise ServeError(f"cannot listen on {host}:{port}: {e.strerror}; choose another --host or --port") from e


def config_of(app: FastAPI, limits: Limits) -> uvicorn.Config:
    connections = ConnectionLimits(
        head_s=limits.header_timeout_s,
        at_most=limits.max_connections,
        per_address=limits.max_connections_per_address,
        unread_s=limits.body_timeout_s,
    )
    return uvicorn.Config(
        app,
        http=guarded_protocol(connections),
        ws="none",
        log_level="error",
        access_log=False,
        server_header=False,
        timeout_keep_alive=KEEP_ALIVE_S,
        timeout_graceful_shutdown=round(limits.shutdown_s),
    )


def serve(app: FastAPI, listener: socket.socket, limits: Limits) -> None:
    """Answers until a signal ends it; prints its address when it begins."""
    _Server(config_of(app, limits)).run([listener])
