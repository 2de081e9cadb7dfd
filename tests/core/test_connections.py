"""Half requests, and too many connections, keep nobody else out: of any server of ours."""

import ipaddress
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import pytest
import uvicorn
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import Route

from core.connections import ConnectionLimits, guarded_protocol
from tests.kits.reward_server_kit import heard

HALF = b"GET / HTTP/1.1\r\nHost: localhost\r\nX: "
WHOLE = b"GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
OTHER = "127.0.0.2"  # this machine's, too


@contextmanager
def answering(limits: ConnectionLimits) -> Iterator[int]:
    """The port of a server that says `here`."""
    app = Starlette(routes=[Route("/", lambda request: PlainTextResponse("here"))])
    with socket.create_server(("127.0.0.1", 0)) as listener:
        server = uvicorn.Server(uvicorn.Config(app, http=guarded_protocol(limits), ws="none", log_level="error"))
        thread = threading.Thread(target=server.run, args=([listener],))
        thread.start()
        try:
            yield listener.getsockname()[1]
        finally:
            server.should_exit = True
            thread.join()


def said(port: int, request: bytes, address: str = "127.0.0.1") -> bytes:
    """All that is answered until the server closes."""
    with socket.create_connection(("127.0.0.1", port), 20, (address, 0)) as s:
        s.sendall(request)
        return heard(s)


def held(stack: ExitStack, port: int, count: int, address: str) -> list[socket.socket]:
    """Half requests that wait."""
    sockets = [
        stack.enter_context(socket.create_connection(("127.0.0.1", port), 20, (address, 0))) for _ in range(count)
    ]
    for s in sockets:
        s.sendall(HALF)
    return sockets


def test_half_requests_of_one_address_keep_no_other_out() -> None:
    with answering(ConnectionLimits(head_s=60, per_address=5)) as port, ExitStack() as stack:
        waiting = held(stack, port, 8, OTHER)
        refused = [s for s in waiting if _is_answered(s)]
        assert len(refused) == 3
        assert all(heard(s).startswith(b"HTTP/1.1 503 ") for s in refused)
        assert said(port, WHOLE, OTHER).startswith(b"HTTP/1.1 503 ")
        assert said(port, WHOLE).endswith(b"here")
        # Who closes them has his places again
        for s in waiting:
            s.close()
        _until(lambda: said(port, WHOLE, OTHER).endswith(b"here"))


def _is_answered(s: socket.socket) -> bool:
    s.settimeout(0.5)
    try:
        return bool(s.recv(1, socket.MSG_PEEK))
    except TimeoutError:
        return False


def _until(is_so: object) -> None:
    assert callable(is_so)
    limit = time.monotonic() + 20
    while not is_so():
        assert time.monotonic() < limit
        time.sleep(0.05)


def test_half_requests_end() -> None:
    with answering(ConnectionLimits(head_s=0.3, per_address=5)) as port, ExitStack() as stack:
        waiting = held(stack, port, 5, "127.0.0.1")
        assert [heard(s) for s in waiting] == [b""] * 5
        assert said(port, WHOLE).endswith(b"here")
        assert b"head is too long" in said(port, HALF + b"x" * 100_000)


def test_a_proxy_asks_for_many() -> None:
    proxies = (ipaddress.ip_network(f"{OTHER}/32"),)
    with answering(ConnectionLimits(head_s=60, per_address=2, proxies=proxies)) as port, ExitStack() as stack:
        held(stack, port, 6, OTHER)
        assert said(port, WHOLE, OTHER).endswith(b"here")


def test_all_addresses_together() -> None:
    with answering(ConnectionLimits(head_s=60, at_most=4, per_address=4)) as port, ExitStack() as stack:
        held(stack, port, 2, OTHER)
        held(stack, port, 2, "127.0.0.3")
        _until(lambda: said(port, WHOLE).startswith(b"HTTP/1.1 503 "))


def test_no_more_than_file_handles(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("resource.getrlimit", lambda kind: (200, 400))
    assert ConnectionLimits(at_most=1024).open_at_most == 100
