"""An OpenAI-compatible server on loopback that answers to the schema, the same to the same question, or misbehaves.

    python -m tests.kits.vlm_standin [--port 0] [--log FILE] [--latency 0.2] [--fault drop:0.3] ...

prints its URL (the base that ends in /v1) and serves until it is ended. A fault is KIND[:SHARE][:first=N][:after=N]:
of the chat requests numbered `after` and higher, and of those the first N, that share gets it, and with `about` only
those that hold this text. Kinds: see FAULTS.
The log has a JSON line for each chat request received, and one for each whole answer.
"""

import argparse
import contextlib
import hashlib
import json
import random
import socket
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.kits.http_server import Answering, started
from tests.kits.vlm_replies import IN_THE_REPLY, answer, completion, prompt_tokens

BROKEN = {
    "429": (429, "slow down"),
    "500": (500, "out of memory"),
    "refused": (400, "no picture can be read,\nby far"),
}
ON_THE_WIRE = (*BROKEN, "drop", "hang", "gone")
FAULTS = (*ON_THE_WIRE, *IN_THE_REPLY)


@dataclass(frozen=True)
class Fault:
    kind: str
    share: float = 1.0
    first: int | None = None
    after: int = 0
    about: str = ""

    @classmethod
    def parse(cls, text: str) -> "Fault":
        kind, *parameters = text.split(":")
        if kind not in FAULTS:
            raise ValueError(f"unknown fault {kind}; one of {', '.join(FAULTS)}")
        options: dict[str, Any] = {}
        for part in parameters:
            name, _, value = part.rpartition("=")
            options[name or "share"] = int(value) if name else float(value)
        return cls(kind, **options)

    def hits(self, number: int, body: bytes) -> bool:
        """Of the chat request with this number, from 0."""
        if self.about.encode() not in body:
            return False
        if number < self.after or (self.first is not None and number >= self.after + self.first):
            return False
        return random.Random(f"0 {self.kind} {number}").random() < self.share


@dataclass
class StandIn:
    models: Sequence[str] = ("stand-in",)
    root: str = "stand-in/root"
    faults: Sequence[Fault] = ()
    latency_s: float = 0.0
    parse: bool = True  # False: one fixed reply, bodies are not looked at
    retry_after_s: float = 1.0  # of a 429
    context_tokens: int = 32768  # a request for more is refused
    tells_limits: bool = True
    fixed: str = '{"ok": true}'
    log_file: Path | None = None
    log: list[dict[str, Any]] = field(default_factory=list)  # what the log file has
    seen: list[dict[str, Any]] = field(
        default_factory=list
    )  # bodies of chat requests, where they are parsed
    listed: int = 0  # requests for /v1/models
    url: str = ""

    def start(self, port: int = 0) -> str:
        self._lock = threading.Lock()
        self._ended = threading.Event()
        self.connections: set[socket.socket] = set()
        self._server = started(_Handler, port, standin=self)
        self.url = f"http://127.0.0.1:{self._server.server_port}/v1"
        return self.url

    def stop(self) -> None:
        """As a killed server: nothing listens, open connections end."""
        self._ended.set()
        self._server.shutdown()
        self._server.server_close()
        for connection in list(self.connections):
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)

    @property
    def received(self) -> list[str]:
        return [line["sha256"] for line in self.log if line["event"] == "received"]

    @property
    def answered(self) -> list[str]:
        return [line["sha256"] for line in self.log if line["event"] == "answered"]

    def models_card(self) -> dict[str, Any]:
        self.listed += 1
        facts: dict[str, Any] = {"object": "model", "owned_by": "stand-in", "root": self.root}
        if self.tells_limits:
            facts["max_model_len"] = self.context_tokens
        return {"object": "list", "data": [{"id": m, **facts} for m in self.models]}

    def chat(self, body: bytes, handler: "_Handler") -> None:
        sha256 = hashlib.sha256(body).hexdigest() if self.parse else ""
        with self._lock:
            number = len(self.received) if self.parse else 0
            kind = next((f.kind for f in self.faults if f.hits(number, body)), None)
            self._note("received", sha256, kind)
        if self.latency_s:
            time.sleep(self.latency_s)
        if kind in ON_THE_WIRE:
            return self._break(kind, body, handler)
        if self.parse:
            request = json.loads(body)
            self.seen.append(request)
            if request["model"] not in self.models:
                message = f"The model `{request['model']}` does not exist."
                error = {"message": message, "type": "NotFoundError", "code": 404}
                return handler.answer({"error": error}, 404)
            wanted = prompt_tokens(request["messages"]) + request["max_tokens"]
            if wanted > self.context_tokens:
                message = f"The model's maximum context length is {self.context_tokens} tokens."
                return handler.answer({"error": {"message": message}}, 400)
            handler.answer(answer(request, sha256, kind))
        else:
            handler.answer(completion(self.models[0], self.fixed, 1000, 10))
        return self._note("answered", sha256, kind)

    def _break(self, kind: str, body: bytes, handler: "_Handler") -> None:
        """Misbehave."""
        if kind in BROKEN:
            status, message = BROKEN[kind]
            headers = {}
            if kind == "429":
                headers["Retry-After"] = f"{self.retry_after_s:g}"
            return handler.answer({"error": {"message": message}}, status, headers)
        if kind == "hang":
            self._ended.wait(3600)
        elif kind == "gone":
            self.stop()
        elif body[-2] % 2:  # dropped: some before, some amid the answer
            handler.send_response(200)
            handler.send_header("Content-Length", "1000")
            handler.end_headers()
            handler.wfile.write(b"{")
        handler.close_connection = True
        return None

    def _note(self, event: str, sha256: str, fault: str | None) -> None:
        line = {"event": event, "t": time.time(), "sha256": sha256, "fault": fault}
        self.log.append(line)
        if self.log_file:
            with self.log_file.open("a") as f:
                f.write(json.dumps(line) + "\n")


class _Handler(Answering):
    standin: StandIn

    def setup(self) -> None:
        super().setup()
        self.standin.connections.add(self.connection)

    def finish(self) -> None:
        self.standin.connections.discard(self.connection)
        with contextlib.suppress(OSError):
            super().finish()

    def handle(self) -> None:
        with contextlib.suppress(ConnectionError):
            super().handle()

    def do_GET(self) -> None:
        if self.path == "/v1/models":
            self.answer(self.standin.models_card())
        else:
            super().do_GET()

    def do_POST(self) -> None:
        self.standin.chat(self.body(), self)


@contextlib.contextmanager
def serving(server: StandIn) -> Iterator[StandIn]:
    server.start()
    try:
        yield server
    finally:
        server.stop()


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--log", type=Path)
    parser.add_argument("--model", action="append")
    parser.add_argument("--latency", type=float, default=0.0)
    parser.add_argument("--fault", type=Fault.parse, action="append", default=[])
    args = parser.parse_args()
    server = StandIn(
        args.model or ["stand-in"], faults=args.fault, latency_s=args.latency, log_file=args.log
    )

    print(server.start(args.port), flush=True)
    with contextlib.suppress(KeyboardInterrupt):
        threading.Event().wait()
    return 0


if __name__ == "__main__":
    sys.exit(main())
