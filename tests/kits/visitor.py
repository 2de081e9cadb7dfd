"""Visitors of the explorer: a client as a browser on this machine is one, a real server, and
requests byte by byte."""

import os
import re
import signal
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

import cv2
import httpx
import numpy as np
from fastapi.testclient import TestClient

from core.paths import Workspace
from explorer.app import create_app
from explorer.site import Options
from tests.kits.cli_kit import PROGRAM, environment
from tests.kits.lake_kit import opened
from tests.kits.sql_attacks import below, state_of
from warehouse.lake import digest

QUIET_S = 20  # a server that says nothing for so long waits for more
HOME = "http://127.0.0.1"


def visit(space: Workspace, options: Options | None = None, home: str = HOME) -> TestClient:
    return TestClient(
        create_app(space, options or Options()), base_url=home, raise_server_exceptions=False
    )


def picture(client: Any, url: str) -> np.ndarray:
    """BGR."""
    decoded = cv2.imdecode(np.frombuffer(client.get(url).content, np.uint8), cv2.IMREAD_COLOR)
    assert decoded is not None
    return decoded.astype(int)


def csrf(client: Any) -> str:
    return re.findall(r'name="csrf-token" content="([0-9a-f]+)"', client.get("/nowhere").text)[0]


def post(client: Any, url: str, body: Any, **headers: str) -> httpx.Response:
    """As our own page posts; `headers` overrule."""
    return client.post(url, json=body, headers=_own(client) | headers)


def delete(client: Any, url: str) -> httpx.Response:
    return client.delete(url, headers=_own(client))


def _own(client: Any) -> dict[str, str]:
    return {"origin": str(client.base_url).rstrip("/"), "x-csrf-token": csrf(client)}


@contextmanager
def serving(space: Workspace, **env: str) -> "Iterator[tuple[httpx.Client, subprocess.Popen[str]]]":
    """`proccorpus explore` in a process of its own, with a client of it; killed at the end, with
    its queries'."""
    command = [
        PROGRAM,
        "explore",
        "--port",
        "0",
        "--no-open",
        "--no-token",
        "--workspace",
        space.root,
    ]
    piped: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    with subprocess.Popen(command, env=environment(**env), **piped) as server:
        try:
            assert server.stdout
            line = server.stdout.readline()
            urls = re.findall(r"https?://[^/\s]+", line)
            assert urls, line + (server.stderr.read() if server.stderr else "")
            with httpx.Client(base_url=urls[0], timeout=600, trust_env=False) as client:
                yield client, server
        finally:
            for pid in (*below(server.pid), server.pid):
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)


def raw(url: str, request: bytes) -> tuple[int, bytes]:
    """Status and all that a server answers to these bytes; 0: it hung up, or waits for more,
    without a word."""
    host, port = url.removeprefix("http://").split("/")[0].split(":")
    answer = b""
    with socket.create_connection((host, int(port)), timeout=QUIET_S) as s:
        with suppress(
            OSError
        ):  # refused before all of it was sent, or waiting for what never comes
            s.sendall(request.replace(b"HOST", f"{host}:{port}".encode()))
        with suppress(OSError):
            while part := s.recv(65536):
                answer += part
    match = re.match(rb"HTTP/1\.1 (\d{3})", answer)
    return int(match[1]) if match else 0, answer


def fingerprint(space: Workspace) -> dict[str, str]:
    """Hashes of the corpus's contents and of every file of the workspace."""
    with opened(space, read_only=True) as lake:
        contents = digest(lake) | {"snapshot": str(lake.snapshot())}
    return contents | state_of(space.root)
