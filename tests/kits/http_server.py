"""Servers of tests: HTTP on loopback, its answers, and applications of ours that listen."""

import json
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from tests.kits.patience import PATIENCE_S


@contextmanager
def listening(app: Any) -> Iterator[Any]:
    """An application of ours in a thread; `app.state` has its `url` and its `server`."""
    import uvicorn  # here: what only answers does without

    from core.web import listen, server_config

    with listen("127.0.0.1", 0) as listener:
        app.state.server = uvicorn.Server(server_config(app))
        app.state.url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        thread = threading.Thread(target=app.state.server.run, args=([listener],), daemon=True)
        thread.start()
        try:
            yield app
        finally:
            app.state.server.should_exit = True
            thread.join(PATIENCE_S)


class Answering(BaseHTTPRequestHandler):
    """Says nothing of its requests. Text is answered as HTML, bytes as they are, all else as
    JSON."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True  # head and body are two packets

    def log_message(self, format: str, *args: object) -> None:
        pass

    def do_GET(self) -> None:
        self.answer(b"", 404)

    def do_HEAD(self) -> None:
        self.do_GET()

    def body(self) -> bytes:
        if self.headers.get("Transfer-Encoding") != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length") or 0))
        data = b""
        while size := int(self.rfile.readline(), 16):
            data += self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()
        return data

    def answer(
        self, value: object, status: int = 200, headers: Mapping[str, str] | None = None
    ) -> None:
        kind = {str: "text/html; charset=utf-8", bytes: "application/octet-stream"}.get(
            type(value), "application/json"
        )
        if isinstance(value, bytes):
            data = value
        else:
            data = (value if isinstance(value, str) else json.dumps(value)).encode()
        self.send_response(status)
        for name, text in {
            "Content-Type": kind,
            "Content-Length": str(len(data)),
            **(headers or {}),
        }.items():
            self.send_header(name, text)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)


def started(handler: Any, port: int = 0, **attributes: object) -> ThreadingHTTPServer:
    """A server of that handler, whose class has what is known, in a thread."""
    bound = type("Bound", (handler,), attributes) if attributes else handler
    server = type("Server", (ThreadingHTTPServer,), {"request_queue_size": 512})(
        ("127.0.0.1", port), bound
    )
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    return server


@contextmanager
def serving(handler: Any, **attributes: object) -> Iterator[str]:
    """The address of such a server."""
    server = started(handler, **attributes)
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
