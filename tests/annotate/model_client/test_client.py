"""Each fault of a server ends as docs/vlm.md says, and a question is asked once."""

import asyncio
import contextlib
import hashlib
import io
import json
import re
import subprocess
import sys
import time
import zlib
from collections.abc import AsyncIterator, Awaitable, Coroutine, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from PIL import Image as Pictures

from annotate.config import Price, VlmConfig
from annotate.model_client.calls import Image, Reply, Request, VlmError
from annotate.model_client.client import Client
from annotate.model_client.endpoints import Endpoint, Served, TryError
from annotate.model_client.responses import FILE, ResponseStore, StoredReply, encode
from core.paths import ROOT
from tests.kits.files import table
from tests.kits.patience import PATIENCE_S
from tests.kits.vlm_standin import Fault, StandIn, serving

pytestmark = pytest.mark.usefixtures("short_pauses")
SCHEMA, STORED, CALL = table("vlm_requests").values()


def picture(number: int) -> Image:
    data = io.BytesIO()
    Pictures.new("RGB", (64, 32)).save(data, "JPEG", comment=str(number).encode())
    return Image.of(data.getvalue())


def question(n: int = 0, **changes: Any) -> Request:
    request = Request(
        "plan", "You look.", (picture(n), f"What {n}?"), SCHEMA, max_tokens=500, seed=7
    )
    return replace(request, **changes)


class Bench:
    """A store, and clients and servers around it."""

    def __init__(self, folder: Path):
        self.folder = folder
        self.store = ResponseStore(folder / "responses")

    @contextlib.asynccontextmanager
    async def server(self, *faults: str, **options: Any) -> AsyncIterator[StandIn]:
        server = StandIn(faults=[Fault.parse(f) for f in faults], **options)
        with serving(server):
            yield server

    def client(self, *servers: StandIn, build_id: str = "b", **config: Any) -> Client:
        urls = tuple(s.url for s in servers)
        options = {
            "model": "stand-in",
            "endpoints": urls,
            "max_concurrency": 8,
            "timeout_s": 5.0,
        } | config
        return Client(
            VlmConfig(**options), self.store,
            build_id=build_id, dataset="demo", label_run="run", prompt_version="v1",
        )  # fmt: skip

    def statuses(self) -> list[str]:
        """Of every request that was sent."""
        return [s for (s,) in self.store.db.execute("SELECT status FROM attempts ORDER BY id")]


@pytest.fixture
def bench(tmp_path) -> Bench:
    return Bench(tmp_path)


def run(test: Coroutine[Any, Any, Any]) -> Any:
    return asyncio.run(asyncio.wait_for(test, 120))  # ends a hang


async def outcomes(asks: list[Awaitable[Reply]]) -> list[Reply | str]:
    """Replies, or reason codes of errors."""
    replies = await asyncio.gather(*asks, return_exceptions=True)
    for e in replies:
        assert isinstance(e, Reply | VlmError), e
        assert not isinstance(e, VlmError) or "\n" not in str(e)
    return [e.reason if isinstance(e, VlmError) else e for e in replies]


SOME = tuple(map(question, range(40)))


def ask_some(
    bench: Bench,
    *faults: str,
    requests: Sequence[Request] = SOME[:20],
    server: dict | None = None,
    **config: Any,
) -> tuple[list[Reply | str], StandIn]:
    async def ask_all():
        served = {"retry_after_s": 0.05} | (server or {})
        async with (
            bench.server(*faults, **served) as standing,
            bench.client(standing, **config) as client,
        ):
            asks = [client.ask(request, n) for n, request in enumerate(requests)]
            return await outcomes(asks), standing

    return run(ask_all())


def test_without_a_schema_any_text_is_a_reply(bench):
    request = question(schema=None, system="", extra={"logprobs": True, "top_logprobs": 2})
    assert request.key("m", None) != replace(request, extra={}).key("m", None)
    [first], server = ask_some(bench, requests=[request])
    [second_reply], _ = ask_some(bench, requests=[request], build_id="b2")
    [body] = server.seen
    assert [m["role"] for m in body["messages"]] == ["user"]
    assert "response_format" not in body
    assert body["top_logprobs"] == 2
    assert first.value["text"].endswith("%")
    assert (first.value["finish"], [token for token, _ in first.value["first_token"]]) == (
        "stop",
        ["True", "False"],
    )
    assert second_reply == replace(first, cached=True)


def ask_in_vain(
    bench: Bench, *faults: str, server: dict | None = None, **config: Any
) -> tuple[VlmError, StandIn]:
    """What a question about episode 5 ends with."""

    async def ask_one():
        async with (
            bench.server(*faults, **(server or {})) as standing,
            bench.client(standing, **config) as client,
        ):
            with pytest.raises(VlmError) as e:
                await client.ask(question(), 5)
            return e.value, standing

    return run(ask_one())


def test_retry_after_is_honoured(bench):
    start = time.monotonic()
    replies, server = ask_some(bench, "429:first=1", requests=SOME[:4], max_concurrency=1)
    assert all(isinstance(r, Reply) for r in replies)
    first, second = [line["t"] for line in server.log if line["event"] == "received"][:2]
    assert 0.05 <= second - first < 1.0
    assert time.monotonic() - start < 3


def test_a_server_that_puts_off_for_long_is_not_waited_for(bench):
    replies, server = ask_some(bench, "429", requests=SOME[:12], server={"retry_after_s": 3600})
    assert replies == ["refused"] * 12
    assert len(server.received) <= 8


def test_models_that_are_put_off_are_no_missing_server(bench, monkeypatch):
    async def busy(_: Endpoint) -> list[Served]:
        raise TryError("busy", "HTTP 429", after_s=3600.0)

    monkeypatch.setattr(Endpoint, "models", busy)
    replies, server = ask_some(bench, requests=SOME[:3])
    assert (replies, server.received) == (["refused"] * 3, [])


@pytest.mark.parametrize("tells_limits", [True, False])
def test_a_reply_gets_the_room_that_its_question_leaves(bench, tells_limits):
    limits = {"context_tokens": 4096, "tells_limits": tells_limits}
    replies, server = ask_some(
        bench, "cut:first=1", requests=SOME[:6], server=limits, max_concurrency=1
    )
    assert all(isinstance(r, Reply) for r in replies)
    assert max(body["max_tokens"] for body in server.seen) >= 4000
    assert len(server.seen) == 7 + (not tells_limits)
    assert bench.statuses() == ["cut"] + ["ok"] * 6, "a refusal is no reply, and costs nothing"


@pytest.mark.parametrize("tells_limits", [True, False])
def test_a_question_that_is_too_long_is_named_with_the_remedy(bench, tells_limits):
    limits = {"context_tokens": 260, "tells_limits": tells_limits}
    error, server = ask_in_vain(bench, server=limits)
    assert re.search(r"episode 5, .* --max-model-len", str(error))
    assert (error.reason, error.is_too_long) == ("wrong_request", True)
    assert (len(server.received), bench.statuses()) == (not tells_limits, [])


@pytest.mark.parametrize(("fault", "reason", "message"), table("lasting_faults"))
def test_lasting_faults_end_with_one_clear_message(bench, fault, reason, message):
    error, server = ask_in_vain(bench, fault, max_attempts=3)
    assert error.reason == reason
    assert message in str(error)
    assert "\n" not in str(error)
    assert ("demo, episode 5, plan" in str(error)) != error.is_fatal
    requests = {"bad_reply": 2, "cut": 2, "wrong_model": 1, "wrong_request": 1, "server_gone": 6}[
        reason
    ]
    assert len(server.received) == requests == len(bench.statuses())
    assert not bench.store.keys()
    assert "ok" not in bench.statuses()


def test_a_bad_reply_is_asked_again_in_another_way(bench):
    [reply], server = ask_some(bench, "not_json:first=1", requests=SOME[:1])
    bodies = server.seen
    assert [(b.get("seed"), b["temperature"]) for b in bodies] == [(7, 0.0), (None, 0.3)]
    first, second_content = (b["messages"][-1]["content"] for b in bodies)
    assert second_content[:-1] == first
    assert "could not be used: the reply is no JSON (does the server" in second_content[-1]["text"]
    assert bench.statuses() == ["bad_reply", "ok"]
    stored = bench.store.get(reply.key)
    assert stored.params == {"max_tokens": 500, "temperature": 0.3, "attempt": 1}
    (row,) = bench.store.calls("b")
    assert row["prompt_tokens"] > reply.prompt_tokens


def test_a_hang_now_and_then_costs_a_timeout_only(bench):
    replies, _ = ask_some(bench, "hang:0.2", requests=SOME[:30], timeout_s=1.0)
    assert all(isinstance(r, Reply) for r in replies)


def test_one_poisonous_request_does_not_end_the_others(bench):
    async def ask_with_a_poisonous_one():
        async with (
            bench.server("500:after=1:first=6") as server,
            bench.client(server, max_attempts=3) as client,
        ):
            good = await client.ask(question(0), 0)
            poison = asyncio.create_task(client.ask(question(1), 1))
            while len(server.received) < 7:
                await asyncio.sleep(0.001)
                client.endpoints[0].succeeded_at = time.monotonic()  # as if others were answered
                client.endpoints[0].failures = 0
            return good, (await outcomes([poison]))[0], await client.ask(question(2), 2)

    good, poison, third_reply = run(ask_with_a_poisonous_one())
    assert (good.cached, poison, third_reply.cached) == (False, "refused", False)


@pytest.mark.parametrize(
    ("options", "config", "message"),
    [
        ({"models": ["small", "large"]}, {}, "serves small, large, not stand-in: serve it"),
        ({"models": ["stand-in"]}, {"strong_model": "large"}, "serves stand-in, not large"),
        ({"models": ["stand-in"]}, {"cheap_models": ("tiny",)}, "serves stand-in, not tiny"),
        (
            {"root": "/cache/models--a--b/snapshots/" + "1" * 40}, {"revision": "2" * 40},
            f"in revision {'1' * 40}, configured: {'2' * 40}",
        ),
    ],
)  # fmt: skip
def test_the_model_is_checked_before_the_first_call(bench, options, config, message):
    async def ask_wrong_model():
        async with bench.server(**options) as server:
            async with bench.client(server, **config) as client:
                replies = await outcomes([client.ask(question(n), n) for n in range(9)])
            async with bench.client(server, **config) as client:
                with pytest.raises(VlmError) as e:
                    await client.check()
            return replies, server, str(e.value)

    replies, server, error = run(ask_wrong_model())
    assert replies == ["wrong_model"] * 9
    assert (server.received, server.listed) == ([], 2)
    assert message in error


def test_endpoints_must_serve_the_same(bench):
    async def ask_unlike_servers(*roots: str) -> str | None:
        servers = bench.server(root=roots[0]), bench.server(root=roots[1], context_tokens=5000)
        async with (
            servers[0] as first_server,
            servers[1] as two,
            bench.client(first_server, two) as client,
        ):
            try:
                await client.check()
            except VlmError as e:
                return str(e)
            assert client.served["stand-in"].context_tokens == 5000

    assert "different models as stand-in: /a/model at http" in run(
        ask_unlike_servers("/a/model", "/b/model-fp8")
    )
    assert run(ask_unlike_servers("/a/model", "/b/model/")) is None
    assert run(ask_unlike_servers("a/b", "/cache/models--a--b/snapshots/" + "1" * 40)) is None


def test_no_server_no_key_no_request(bench, monkeypatch):
    async def ask_nobody():
        async with bench.server() as server:
            pass
        async with bench.client(server) as client:
            replies = await outcomes([client.ask(question(n), n) for n in range(9)])
        return server, replies

    server, replies = run(ask_nobody())
    assert replies == ["server_gone"] * 9
    assert bench.statuses() == []

    async def enter():
        async with bench.client(server, api_key_env="STAND_IN_KEY"):
            pass

    monkeypatch.delenv("STAND_IN_KEY", raising=False)
    with pytest.raises(VlmError, match=r"STAND_IN_KEY .* is not set"):
        run(enter())


@pytest.mark.parametrize("config", [{"max_calls": 7}, {"max_cost_usd": 0.7, "price": "per call"}])
def test_a_budget_stops_cleanly(bench, config):
    # 0.1 USD a call: 500 reply tokens are reserved, and the truth is less
    if "price" in config:
        config = config | {"price": Price(usd_per_million_completion_tokens=200.0)}

    def spend(build_id: str) -> tuple[list[Reply | str], list[str]]:
        replies, server = ask_some(
            bench, requests=SOME[:40], server={"latency_s": 0.02}, build_id=build_id, **config
        )
        return replies, server.received

    everything, sent = spend("b1")
    replies = [r for r in everything if isinstance(r, Reply)]
    assert len(replies) == len(sent)
    assert {r for r in everything if isinstance(r, str)} == {"budget"}
    spent = bench.store.spent("b1")
    if "max_calls" in config:
        assert (spent[0], len(replies)) == (7, 7)
    else:
        true = sum(r.completion_tokens for r in replies) * 200e-6
        assert spent[1] == pytest.approx(true)
        assert 0 < true <= 0.7
    repeated, _ = spend("b2")
    # Another build has a budget of its own
    assert sum(isinstance(r, Reply) for r in repeated) > len(replies)
    assert sum(isinstance(r, Reply) and r.cached for r in repeated) == len(replies)


def test_what_was_answered_is_given_without_a_server(bench):
    async def ask_three() -> list[Reply | str]:
        async with bench.server() as server, bench.client(server, max_attempts=1) as client:
            replies = await outcomes([client.ask(question(0), 0)])
            server.stop()
            replies += await outcomes([client.ask(question(1), 1)])
            return replies + await outcomes([client.ask(question(k), k) for k in (0, 2)])

    first, gone, again, gone_too = run(ask_three())
    assert isinstance(first, Reply)
    assert isinstance(again, Reply)
    assert (first.key, first.cached, again.cached) == (again.key, False, True)
    assert (gone, gone_too) == ("server_gone", "server_gone")


def test_a_damaged_picture_is_not_shown(bench):
    damaged = Image(picture(0).sha256, picture(0).jpeg[:10])
    replies, server = ask_some(bench, requests=[question(content=(damaged, "What?"))])
    assert (replies, server.received) == (["refused"], [])


REPLY = StoredReply(**STORED | {"images": tuple(STORED["images"])})


def key(n: int) -> str:
    return hashlib.sha256(str(n).encode()).hexdigest()


def reply(n: int) -> StoredReply:
    return replace(REPLY, value={"n": n}, text=f'{{"n": {n}}}')


@pytest.fixture
def store(tmp_path) -> ResponseStore:
    return ResponseStore(tmp_path / "responses")


def fill(store: ResponseStore, numbers: range) -> None:
    for n in numbers:
        store.put(key(n), reply(n))


@pytest.mark.parametrize("damage", ["cut", "empty", "one bit", "another key", "no JSON"])
def test_a_damaged_reply_is_absent_and_reported(store, damage):
    data = bytearray(encode(key(0), REPLY))
    data[100] ^= 1
    store.put(key(0), REPLY)
    damaged = {
        "cut": bytes(data[:200]), "empty": b"", "one bit": bytes(data),
        "another key": encode(key(1), REPLY),
        "no JSON": zlib.compress(hashlib.sha256(b"[").hexdigest().encode() + b"\n["),
    }[damage]  # fmt: skip
    with store.transaction() as db:
        db.execute("UPDATE replies SET data = ?", (damaged,))
    assert store.get(key(0)) is None
    assert store.damaged == [f"damaged reply {key(0)[:12]} in {store.path}: counts as never asked"]
    store.put(key(0), REPLY)
    assert store.get(key(0)) == REPLY


def test_a_file_that_is_no_database_is_named(tmp_path):
    (tmp_path / FILE).write_bytes(b"\xff" * 4096)
    with pytest.raises(VlmError, match=r"replies.sqlite is damaged, or no database"):
        ResponseStore(tmp_path)


def test_a_damaged_page_is_named_and_nothing_is_asked_again(store):
    fill(store, range(200))
    store.db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    store.close()
    data = bytearray(store.path.read_bytes())
    data[8192:-4096] = b"\xff" * (len(data) - 12288)
    store.path.write_bytes(data)
    second_store = ResponseStore(store.root)
    with pytest.raises(VlmError, match=r"replies.sqlite is damaged"):
        list(map(second_store.get, map(key, range(200))))


def test_prune(store):
    fill(store, range(6))
    old = replace(REPLY, created_at="2020-01-01T00:00:00+00:00")
    store.put(key(6), old)
    store.put(key(7), old)
    reader = ResponseStore(store.root)
    assert reader.get(key(1)) == reply(1)
    with pytest.raises(ValueError, match="which replies to keep"):
        store.prune()
    assert store.prune(keep={key(6)}, older_than=datetime(2021, 1, 1, tzinfo=UTC)) == 1
    assert store.prune(older_than=datetime(2021, 1, 1, tzinfo=UTC)) == 1
    assert store.prune(keep={key(1), key(2), key(50)}) == 4
    for s in (store, reader):
        assert [n for n in range(8) if s.get(key(n))] == [1, 2]
    assert store.prune(keep=[]) == 2
    assert (store.keys(), store.damaged) == ([], [])


def test_money_is_held_back_at_its_estimate_and_counted_at_its_truth(store):
    first = store.reserve(CALL, 0.5, max_cost=1.0)
    store.reserve(CALL, 0.5, max_cost=1.0)
    with pytest.raises(VlmError, match=r"1 USD .* no room"):
        store.reserve(CALL, 0.25, max_cost=1.0)
    store.settle(first, status="ok", cost_usd=0.125)
    assert store.spent("b1") == (2, 0.625)
    store.reserve(CALL, 0.25, max_cost=1.0)
    assert store.spent("b1") == (3, 0.875)


def test_what_was_under_way_in_a_killed_process_stays_counted(store):
    code = (
        "import json, os, sys; from pathlib import Path; from annotate.model_client.responses import ResponseStore\n"
        "ResponseStore(Path(sys.argv[1])).reserve(json.loads(sys.argv[2]), 0.25)\n"
        "os.kill(os.getpid(), 9)"
    )
    subprocess.run(
        [sys.executable, "-c", code, store.root, json.dumps(CALL)], cwd=ROOT, timeout=PATIENCE_S
    )
    assert store.spent("b1") == (1, 0.25)
    assert [(r["status"], r["cost_usd"]) for r in store.calls("b1")] == [("sent", 0.25)]
