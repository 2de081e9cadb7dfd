"""The reward server under load on loopback: sessions at once, beside clients that misbehave, and its memory.

    .venv/bin/python -m benchmarks.reward_server [--model FOLDER] [--sessions 64] [--frames 20] [--soak 10000]

A server in a process of its own. Three parts:

- `--sessions` live runs at once, a frame at a time, each compared with what the core says of the same pictures;
- the same again while others send pictures that are none, bodies of 100 MB, bodies that never end, heads byte by byte,
  and half requests, and a model error is injected into one session;
- `--soak` frames one after another over 8 sessions; the server's resident memory before and after.

Without --model, a tiny random one. It fails where a reward differs from the core's by more than its tolerance, a wrong
request gets no 4xx with a reason, the injected error reaches another session, or memory grows by more than 10 %.
"""

import argparse
import io
import json
import os
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import numpy as np
from PIL import Image

from core.serving import listen, serve
from eval.reward.checkpoint import open_checkpoint
from eval.reward.scorer import TOLERANCE, CameraView, Reward, Scorer
from eval.server.app import make_app
from eval.server.client import RewardClient, RewardServerError
from eval.server.limits import ServerLimits

TASK, FPS, PX = "Open the green drawer.", 4.0, 128
POISON = 255  # a picture of nothing but this breaks the model
MOST_GROWTH = 0.10
PAUSE_S = 0.5  # between two wrong requests of a kind
TIMEOUT_S = 60
LIMITS = ServerLimits(max_body_bytes=16 * 2**20)


@dataclass(frozen=True)
class Load:
    """Seconds of each append, and how far rewards were from the core's."""

    latency_s: np.ndarray
    wall_s: float
    difference: float
    failed: int

    def told(self) -> str:
        p50, p99 = 1000 * np.quantile(self.latency_s, (0.5, 0.99))
        rate = len(self.latency_s) / self.wall_s
        return f"{rate:.1f} frames/s, p50 {p50:.0f} ms, p99 {p99:.0f} ms, max difference {self.difference:.1e}"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path)
    parser.add_argument("--sessions", type=int, default=64)
    parser.add_argument("--frames", type=int, default=20)
    parser.add_argument("--soak", type=int, default=10_000)
    parser.add_argument("--serve", action="store_true", help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.serve:
        return serve_breakable(asked.model)
    with tempfile.TemporaryDirectory() as folder:
        model = asked.model or tiny_model(Path(folder) / "tiny")
        command = [sys.executable, "-m", "benchmarks.reward_server", "--serve", "--model", model]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        try:
            assert process.stdout is not None
            url = process.stdout.readline().strip().removeprefix("listening on ")
            return measure(url, process.pid, open_checkpoint(model), asked)
        finally:
            process.terminate()
            code = process.wait(60)
            print(f"the server ended with code {code}")


def measure(url: str, pid: int, scorer: Scorer, asked: argparse.Namespace) -> int:
    runs = [pictures(asked.frames, seed) for seed in range(asked.sessions)]
    known = [core(scorer, run) for run in runs]
    print(
        f"{asked.sessions} sessions x {asked.frames} frames of {PX} px; {os.cpu_count()} cores, "
        f"load {os.getloadavg()[0]:.1f}"
    )
    alone = load(url, runs, known)
    print(f"alone: {alone.told()}")
    stop, told = threading.Event(), Counter[str]()
    others = [threading.Thread(target=repeat, args=(kind, url, stop, told)) for kind in WRONG]
    for thread in others:
        thread.start()
    beside = load(url, runs, known)
    stop.set()
    for thread in others:
        thread.join()
    print(f"beside others: {beside.told()}")
    for what, count in sorted(told.items()):
        print(f"  {count} x {what}")
    before, after = soak(url, pid, asked.soak)
    growth = (after - before) / before
    print(f"{asked.soak} frames: resident memory {before / 2**20:.0f} MB -> {after / 2**20:.0f} MB ({growth:+.1%})")
    problems = [
        *(["a reward differs from the core's"] if max(alone.difference, beside.difference) > TOLERANCE else []),
        *([f"{alone.failed + beside.failed} frames without a number"] if alone.failed + beside.failed else []),
        *([f"wrong: {what}" for what in told if what.startswith("UNEXPECTED")]),
        *(["memory grew"] if growth > MOST_GROWTH else []),
    ]
    for problem in problems:
        print(f"error: {problem}", file=sys.stderr)
    return int(bool(problems))


# The server


class Breakable(Scorer):
    """Before a scorer's own class: a model that fails as a whole for any batch with a poisoned picture in it."""

    def views(self, views: Sequence[CameraView]) -> list[Reward]:
        if any(v.pictures[-1].rgb.min() == POISON for v in views):
            raise RuntimeError("injected")
        return super().views(views)


def serve_breakable(model: Path) -> int:
    scorer: Any = open_checkpoint(model)
    scorer.__class__ = type("BreakableScorer", (Breakable, type(scorer)), {})
    with listen("127.0.0.1", 0) as listener:
        app = make_app(scorer, ["benchmark"], limits=LIMITS)
        serve(app, listener, lambda url: print(f"listening on {url}", flush=True))
    return 0


def tiny_model(folder: Path) -> Path:
    from training.heads import make_head
    from training.model import ProgressModel, save_model
    from training.recipe import HeadConfig, TinyConfig
    from training.tiny import make_backbone, make_processor, make_tokenizer

    config = TinyConfig(max_px=64, vocabulary=400, hidden=64, layers=2, vision_hidden=64, vision_layers=2)
    tokenizer = make_tokenizer([TASK], config.vocabulary)
    model = ProgressModel(make_backbone(tokenizer, config, 0), make_head(HeadConfig(), config.hidden))
    window = {"profile": "balanced", "window_frames": 8, "window_step_s": 0.5, "picture_max_px": PX}
    save_model(model, make_processor(tokenizer, config), folder, {"max_px": 64, "head": {}, "window": window})
    return folder


# Sessions


def pictures(count: int, seed: int) -> list[np.ndarray]:
    """Coarse noise: distinct, and small as PNG."""
    rng = np.random.default_rng(seed)
    return [
        np.kron(rng.integers(0, 255, (8, 8, 3), np.uint8), np.ones((PX // 8, PX // 8, 1), np.uint8))
        for _ in range(count)
    ]


def core(scorer: Scorer, run: Sequence[np.ndarray]) -> list[float]:
    stream = scorer.stream(TASK, FPS)
    moments = [m for rgb in run if (m := stream.append({"camera": rgb})) is not None]
    return [r.progress if r.progress is not None else float("nan") for r in scorer.score(moments)]


def load(url: str, runs: Sequence[Sequence[np.ndarray]], known: Sequence[Sequence[float]]) -> Load:
    latency: list[float] = []

    def live(run: Sequence[np.ndarray]) -> list[float]:
        found = []
        with RewardClient(url) as client, client.session(TASK, fps=FPS) as session:
            for rgb in run:
                begun = time.perf_counter()
                row = session.append(rgb)
                latency.append(time.perf_counter() - begun)
                found.append(float("nan") if row.progress is None else row.progress)
        return found

    begun = time.perf_counter()
    with ThreadPoolExecutor(len(runs)) as pool:
        found = np.array(list(pool.map(live, runs)))
    wall_s = time.perf_counter() - begun
    return Load(np.array(latency), wall_s, float(np.nanmax(np.abs(found - known))), int(np.isnan(found).sum()))


def soak(url: str, pid: int, frames: int) -> tuple[int, int]:
    """Resident bytes after the first tenth, and at the end."""
    run, before = pictures(50, 1), 0
    with RewardClient(url) as client:
        sessions = [client.session(TASK, fps=FPS) for _ in range(8)]
        for k in range(0, frames, 8 * len(sessions)):
            for session in sessions:
                session.append_all([run[(k + i) % len(run)] for i in range(8)])
            before = before or (resident(pid) if k >= frames // 10 else 0)
        for session in sessions:
            session.close()
    return before, resident(pid)


def resident(pid: int) -> int:
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


# Clients that misbehave: each does one wrong thing and says what came of it


def png(rgb: np.ndarray) -> bytes:
    data = io.BytesIO()
    Image.fromarray(rgb).save(data, "PNG")
    return data.getvalue()


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


if __name__ == "__main__":
    sys.exit(main())
