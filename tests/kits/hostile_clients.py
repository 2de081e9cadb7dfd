"""Clients of the reward server that misbehave: each does one wrong thing and says what came of it."""

import json
import socket
import threading
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import httpx
import numpy as np

from eval.server.client import RewardClient, RewardServerError
from tests.kits.reward_server_kit import FPS, POISON, TASK, pictures, png

PX, TIMEOUT_S = 128, 60
PAUSE_S = 0.5  # between two wrong requests of a kind


def answered(response: httpx.Response, status: int) -> str:
    told = json.loads(response.content) if response.content else {}
    good = response.status_code == status and told.get("reason")
    return (
        f"{response.status_code}: {told.get('reason', '')[:60]}"
        if good
        else f"UNEXPECTED {response.status_code} {told}"
    )


def no_picture(url: str) -> str:
    return answered(
        httpx.post(
            timeout=TIMEOUT_S, url=f"{url}/v1/frames", data={"task": TASK, "fps": "4"}, files={"frames": b"no picture"}
        ),
        415,
    )


def cut_picture(url: str) -> str:
    data = png(pictures(1, 0)[0])
    files = {"frames": data[: len(data) // 2]}
    return answered(
        httpx.post(timeout=TIMEOUT_S, url=f"{url}/v1/frames", data={"task": TASK, "fps": "4"}, files=files), 400
    )


def no_video(url: str) -> str:
    files = {"videos": ("run.mp4", b"a text file" * 1000)}
    return answered(httpx.post(timeout=TIMEOUT_S, url=f"{url}/v1/videos", data={"task": TASK}, files=files), 415)


def announced_100_mb(url: str) -> str:
    with connected(url) as s:
        s.sendall(head("Content-Length: 104857600"))
        return first_line(s, b"413")


def streamed_100_mb(url: str) -> str:
    with connected(url) as s:
        s.sendall(head("Transfer-Encoding: chunked", "Content-Type: multipart/form-data; boundary=x"))
        part = b'--x\r\nContent-Disposition: form-data; name="frames"; filename="a"\r\n\r\n'
        chunk, sent = bytes(2**16), 0
        with suppress(ConnectionError):
            s.sendall(b"%x\r\n%s\r\n" % (len(part), part))
            while sent < 100 * 2**20:
                s.sendall(b"10000\r\n" + chunk + b"\r\n")
                sent += len(chunk)
        return first_line(s, b"411")


def half_request(url: str) -> str:
    with connected(url) as s:
        s.sendall(head("Content-Length: 1000", "Content-Type: application/json") + b"{")
    return "half a request, then gone"


def model_error(url: str) -> str:
    with RewardClient(url) as client, client.session(TASK, fps=FPS) as session:
        good = session.append(pictures(1, 5)[0])
        bad = session.append(np.full((PX, PX, 3), POISON, np.uint8))
    if good.progress is not None and bad.progress is None and (bad.failure or "").startswith("RuntimeError: "):
        return f"200: progress null, failure {bad.failure}"
    return f"UNEXPECTED {bad}"


WRONG: tuple[Callable[[str], str], ...] = (
    no_picture, cut_picture, no_video, announced_100_mb, streamed_100_mb,
    half_request, model_error,
)  # fmt: skip


def repeat(kind: Callable[[str], str], url: str, stop: threading.Event, told: Counter[str]) -> None:
    while True:
        try:
            said = kind(url)
        except (httpx.HTTPError, OSError, RewardServerError) as e:
            said = f"UNEXPECTED {kind.__name__}: {e!r}"
        told[said if said.startswith("UNEXPECTED") else f"{kind.__name__}: {said}"] += 1
        if stop.wait(PAUSE_S):
            return


def connected(url: str) -> socket.socket:
    host, port = url.removeprefix("http://").split(":")
    return socket.create_connection((host, int(port)), timeout=TIMEOUT_S)


def head(*lines: str) -> bytes:
    return "\r\n".join(["POST /v1/frames HTTP/1.1", "Host: localhost", "Connection: close", *lines, "", ""]).encode()


def first_line(s: socket.socket, status: bytes) -> str:
    data = b""
    with suppress(ConnectionResetError):
        while more := s.recv(65536):
            data += more
    if data.startswith(b"HTTP/1.1 " + status) and b'"reason"' in data:
        body: dict[str, Any] = json.loads(data.partition(b"\r\n\r\n")[2])
        return f"{status.decode()}: {body['reason'][:60]}"
    return f"UNEXPECTED {data[:60]!r}, not {status.decode()}"
