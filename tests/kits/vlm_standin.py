"""An OpenAI-compatible server on loopback that answers to the schema, the same to the same question, or misbehaves.

    python -m tests.kits.vlm_standin [--port 0] [--log FILE] [--latency 0.2] [--fault drop:0.3] ...

prints its URL (the base that ends in /v1) and serves until it is ended. A fault is KIND[:SHARE][:first=N][:after=N]:
of the chat requests numbered `after` and higher, and of those the first N, that share gets it, and with `about` only
those that hold this text. Kinds: see FAULTS.
The log has a JSON line for each chat request received, and one for each whole answer.
"""

import argparse
import asyncio
import contextlib
import hashlib
import json
import random
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.kits.patience import PATIENCE_S
from tests.kits.vlm_replies import IN_THE_REPLY, IN_THE_VALUE, answer, completion, prompt_tokens

ON_THE_WIRE = ("429", "500", "drop", "hang", "gone", "refused")
FAULTS = (*ON_THE_WIRE, *IN_THE_REPLY, *IN_THE_VALUE)


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

    async def start(self, port: int = 0) -> str:
        self._writers: set[asyncio.StreamWriter] = set()
        self._server = await asyncio.start_server(
            self._connection, "127.0.0.1", port, limit=1 << 20, backlog=512
        )
        self.url = f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}/v1"
        return self.url

    async def stop(self) -> None:
        """As a killed server: nothing listens, open connections are reset."""
        self._server.close()
        for writer in list(self._writers):
            writer.transport.abort()

    @property
    def received(self) -> list[str]:
        return [line["sha256"] for line in self.log if line["event"] == "received"]

    @property
    def answered(self) -> list[str]:
        return [line["sha256"] for line in self.log if line["event"] == "answered"]

    async def _connection(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.add(writer)
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
                length = next(
                    (
                        int(h.split(":")[1])
                        for h in head.split("\r\n")
                        if h.lower().startswith("content-length:")
                    ),
                    0,
                )
                body = await reader.readexactly(length)
                method, path, _ = head.split(" ", 2)
                await self._route(method, path, body, writer)
                await writer.drain()
        self._writers.discard(writer)
        writer.close()

    async def _route(
        self, method: str, path: str, body: bytes, writer: asyncio.StreamWriter
    ) -> None:
        if (method, path) == ("GET", "/v1/models"):
            self.listed += 1
            facts: dict[str, Any] = {"object": "model", "owned_by": "stand-in", "root": self.root}
            if self.tells_limits:
                facts["max_model_len"] = self.context_tokens
            cards = [{"id": m, **facts} for m in self.models]
            respond(writer, 200, {"object": "list", "data": cards})
        elif (method, path) == ("POST", "/v1/chat/completions"):
            await self._chat(body, writer)
        else:
            respond(writer, 404, {"error": {"message": f"no such path: {path}"}})

    async def _chat(self, body: bytes, writer: asyncio.StreamWriter) -> None:
        number = len(self.received) if self.parse else 0
        sha256 = hashlib.sha256(body).hexdigest() if self.parse else ""
        kind = next((f.kind for f in self.faults if f.hits(number, body)), None)
        self._note("received", sha256, kind)
        if self.latency_s:
            await asyncio.sleep(self.latency_s)
        if kind in ON_THE_WIRE:
            await self._break(kind, body, writer)
            return
        elif self.parse:
            request = json.loads(body)
            self.seen.append(request)
            if request["model"] not in self.models:
                message = f"The model `{request['model']}` does not exist."
                respond(
                    writer,
                    404,
                    {"error": {"message": message, "type": "NotFoundError", "code": 404}},
                )
                return
            wanted = prompt_tokens(request["messages"]) + request["max_tokens"]
            if wanted > self.context_tokens:
                message = f"The model's maximum context length is {self.context_tokens} tokens."
                respond(writer, 400, {"error": {"message": message}})
                return
            respond(writer, 200, answer(request, sha256, kind))
        else:
            respond(writer, 200, completion(self.models[0], self.fixed, 1000, 10))
        await writer.drain()
        self._note("answered", sha256, kind)

    async def _break(self, kind: str, body: bytes, writer: asyncio.StreamWriter) -> None:
        """Misbehave."""
        if kind == "429":
            respond(
                writer,
                429,
                {"error": {"message": "slow down"}},
                f"Retry-After: {self.retry_after_s:g}\r\n",
            )
        elif kind == "500":
            respond(writer, 500, {"error": {"message": "out of memory"}})
        elif kind == "refused":
            respond(writer, 400, {"error": {"message": "no picture can be read,\nby far"}})
        elif kind == "drop":
            if body[-2] % 2:  # some before, some amid the answer
                writer.write(
                    b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 1000\r\n\r\n{"
                )
                await writer.drain()
            writer.close()
        elif kind == "hang":
            await asyncio.sleep(3600)
        elif kind == "gone":
            await self.stop()

    def _note(self, event: str, sha256: str, fault: str | None) -> None:
        line = {"event": event, "t": time.time(), "sha256": sha256, "fault": fault}
        self.log.append(line)
        if self.log_file:
            with self.log_file.open("a") as f:
                f.write(json.dumps(line) + "\n")


def respond(
    writer: asyncio.StreamWriter, status: int, value: dict[str, Any], headers: str = ""
) -> None:
    body = json.dumps(value).encode()
    head = f"HTTP/1.1 {status} X\r\ncontent-type: application/json\r\ncontent-length: {len(body)}\r\n{headers}\r\n"
    writer.write(head.encode() + body)


@contextlib.contextmanager
def serving(server: StandIn) -> Iterator[StandIn]:
    """The stand-in in a thread of its own, for tests that have no event loop."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()
    asyncio.run_coroutine_threadsafe(server.start(), loop).result(PATIENCE_S)
    try:
        yield server
    finally:
        asyncio.run_coroutine_threadsafe(server.stop(), loop).result(PATIENCE_S)
        loop.call_soon_threadsafe(loop.stop)
        thread.join(PATIENCE_S)


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

    async def serve() -> None:
        print(await server.start(args.port), flush=True)
        await asyncio.Event().wait()

    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(serve())
    return 0


if __name__ == "__main__":
    sys.exit(main())
