"""uvicorn's HTTP with bounds that it has not: of a request's head in time and bytes, of connections in all and of one
address. For every server of ours: whoever sends half a request and waits would keep all others out."""

import asyncio
import ipaddress
import resource
import socket
from collections import Counter
from dataclasses import dataclass
from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

Network = ipaddress.IPv4Network | ipaddress.IPv6Network

BUSY = "too many connections: close some, or try again in a moment"


@dataclass(frozen=True)
class ConnectionLimits:
    """`at_most`: connections at once; `per_address`: of one address, but for those of `proxies`, which ask for others.

    `unread_s`: after which an answer that its client does not read is given up; None: it may be read at leisure, such
    as a video that somebody has paused.
    """

    head_s: float = 10.0
    head_bytes: int = 64 * 2**10
    at_most: int = 1024
    per_address: int = 256
    unread_s: float | None = None
    proxies: tuple[Network, ...] = ()

    @property
    def open_at_most(self) -> int:
        """Connections at once: each takes a file handle, and half of what this process may have are for its files."""
        return min(self.at_most, resource.getrlimit(resource.RLIMIT_NOFILE)[0] // 2)


def guarded_protocol(limits: ConnectionLimits) -> type[HttpToolsProtocol]:
    """A class of connections that keeps to the limits, for uvicorn's setting `http`; one for each server."""
    of_address: Counter[str] = Counter()

    class GuardedHttp(HttpToolsProtocol):
        timer: asyncio.TimerHandle | None = None
        head_bytes = 0
        address: str | None = None  # that this connection is counted for

        def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
            super().connection_made(transport)
            if len(self.connections) > limits.open_at_most or not self._is_counted():
                self._refuse()
                return
            # A connection that is to be closed waits for its client to read what is left: the kernel ends that
            if limits.unread_s is not None:
                unread_ms = round(1000 * limits.unread_s)
                transport.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, unread_ms)
            self._await_head()

        def on_message_begin(self) -> None:
            super().on_message_begin()
            self._await_head()

        def on_headers_complete(self) -> None:
            self._head_is_here()
            super().on_headers_complete()

        def data_received(self, data: bytes) -> None:
            super().data_received(data)
            # The timer runs while a head is incomplete: bytes of bodies are counted elsewhere
            if self.timer is not None:
                self.head_bytes += len(data)
                if self.head_bytes > limits.head_bytes and not self.transport.is_closing():
                    self.send_400_response("The request's head is too long.")

        def connection_lost(self, exc: Exception | None) -> None:
            self._head_is_here()
            self._count_no_more()
            super().connection_lost(exc)

        def handle_websocket_upgrade(self) -> None:
            # From here on it is another's connection
            self._count_no_more()
            super().handle_websocket_upgrade()

        def _is_counted(self) -> bool:
            """Count this connection for its address; False where that has as many as it may."""
            host = self.client[0] if self.client else ""
            if _is_of(host, limits.proxies):
                return True
            if of_address[host] >= limits.per_address:
                return False
            of_address[host] += 1
            self.address = host
            return True

        def _count_no_more(self) -> None:
            if self.address is not None:
                of_address[self.address] -= 1
                if not of_address[self.address]:
                    del of_address[self.address]
                self.address = None

        def _refuse(self) -> None:
            head = f"HTTP/1.1 503 Service Unavailable\r\ncontent-type: text/plain\r\ncontent-length: {len(BUSY)}\r\n"
            self.transport.write(f"{head}retry-after: 1\r\nconnection: close\r\n\r\n{BUSY}".encode())
            self.transport.close()

        def _await_head(self) -> None:
            if self.timer is None:
                self.head_bytes = 0
                self.timer = self.loop.call_later(limits.head_s, self.transport.close)

        def _head_is_here(self) -> None:
            if self.timer is not None:
                self.timer.cancel()
                self.timer = None

    return GuardedHttp


def _is_of(host: str, networks: tuple[Network, ...]) -> bool:
    try:
        address: Any = ipaddress.ip_address(host)
    except ValueError:
        return False
    return any(address in network for network in networks)
