"""The explorer on a port of this machine, until Ctrl-C."""

import signal
import socket
import sys
import threading
import time
import webbrowser
from collections.abc import Callable

import uvicorn
from fastapi import FastAPI

from core.connections import ConnectionLimits, Network, guarded_protocol
from explorer.access import PageError


def listen(host: str, port: int) -> socket.socket:
    """A listening socket. Raises PageError where the port is taken or the address is not this machine's."""
    try:
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        bound = socket.socket(family, socket.SOCK_STREAM)
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.bind(address)
        bound.listen()
    except OSError as e:
        raise PageError(f"cannot listen on {host}:{port}: {e.strerror or e}; try --port 0 for a free one") from e
    return bound


def config_of(app: FastAPI, limits: ConnectionLimits = ConnectionLimits()) -> uvicorn.Config:
    return uvicorn.Config(
        app,
        http=guarded_protocol(limits),
        ws="none",
        log_level="warning",
        timeout_graceful_shutdown=2,
        server_header=False,
        # Who asks is the address that the socket says: a header that any client may send says nothing
        proxy_headers=False,
    )


def serve(
    app: FastAPI,
    host: str,
    port: int,
    tell: Callable[[str], None],
    open_browser: bool,
    first: str = "",
    proxies: tuple[Network, ...] = (),
) -> None:
    """Serve until Ctrl-C or SIGTERM; `tell` gets the address as soon as requests are answered there.

    Raises PageError. From the main thread alone: it handles signals.

    `first`: path and query of the page to open, where it is not the plain address. `proxies`: who asks for others, and
    may have more connections than one address may.
    """
    bound = listen(host, port)
    name = f"[{host}]" if bound.family == socket.AF_INET6 else host
    url = f"http://{name}:{bound.getsockname()[1]}{first}"
    server = uvicorn.Server(config_of(app, ConnectionLimits(proxies=proxies)))
    app.state.is_ending = lambda: server.should_exit

    def announce() -> None:
        tell(url)
        if open_browser:
            webbrowser.open(url)

    # uvicorn raises the signal that ended it again: an exit then, so that what was opened is cleared away
    signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))
    started = threading.Thread(target=lambda: _when_started(server, announce), daemon=True)
    started.start()
    try:
        server.run(sockets=[bound])
    finally:
        bound.close()


def _when_started(server: uvicorn.Server, then: Callable[[], None]) -> None:
    while not server.started:
        if server.should_exit:
            return
        time.sleep(0.02)
    then()
