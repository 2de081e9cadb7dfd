"""No stored reply is lost or mixed up; processes keep one budget together."""

import hashlib
import json
import subprocess
import sys
import zlib
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

from annotate.model_client.calls import VlmError
from annotate.model_client.responses import (
    FILE,
    ResponseStore,
    StoredReply,
    encode,
)
from core.paths import ROOT
from tests.kits.patience import PATIENCE_S

REPLY = StoredReply(
    text='{"step": "Grasp the \\u00e9clair"}', value={"step": "Grasp the éclair", "n": [1, 2.5, None, True]},
    prompt_tokens=1000, completion_tokens=20, latency_s=0.25, model="m", model_root=None, stage="plan",
    prompt_version="v1", images=("a" * 64, "b" * 64), params={"temperature": 0.0, "seed": 3},
    created_at="2026-01-02T03:04:05+00:00",
)  # fmt: skip


def key(n: int) -> str:
    return hashlib.sha256(str(n).encode()).hexdigest()


def reply(n: int) -> StoredReply:
    return replace(REPLY, value={"n": n}, text=f'{{"n": {n}}}')


@pytest.fixture
def store(tmp_path: Path) -> ResponseStore:
    return ResponseStore(tmp_path / "responses")


def fill(store: ResponseStore, numbers: range) -> None:
    for n in numbers:
        store.put(key(n), reply(n))


@pytest.mark.parametrize("what", ["cut", "empty", "one bit", "another key", "no JSON"])
def test_a_damaged_reply_is_absent_and_reported(store: ResponseStore, what: str):
    data = bytearray(encode(key(0), REPLY))
    data[100] ^= 1
    store.put(key(0), REPLY)
    damaged = {
        "cut": bytes(data[:200]), "empty": b"", "one bit": bytes(data),
        "another key": encode(key(1), REPLY),
        "no JSON": zlib.compress(hashlib.sha256(b"[").hexdigest().encode() + b"\n["),
    }[what]  # fmt: skip
    with store.transaction() as db:
        db.execute("UPDATE replies SET data = ?", (damaged,))
    assert store.get(key(0)) is None
    assert store.damaged == [f"damaged reply {key(0)[:12]} in {store.path}: counts as never asked"]
    store.put(key(0), REPLY)
    assert store.get(key(0)) == REPLY


def test_a_file_that_is_no_database_is_named(tmp_path: Path):
    (tmp_path / FILE).write_bytes(b"\xff" * 4096)
    with pytest.raises(
        VlmError, match=r"replies.sqlite is damaged, or no database of replies .*or move it away"
    ):
        ResponseStore(tmp_path)


def test_a_damaged_page_is_named_and_nothing_is_asked_again(store: ResponseStore):
    fill(store, range(200))
    store.db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    store.close()
    data = bytearray(store.path.read_bytes())
    data[8192:-4096] = b"\xff" * (len(data) - 12288)
    store.path.write_bytes(data)
    second_store = ResponseStore(store.root)
    with pytest.raises(VlmError, match=r"replies.sqlite is damaged"):
        list(map(second_store.get, map(key, range(200))))


def test_prune(store: ResponseStore):
    fill(store, range(6))
    old = replace(REPLY, created_at="2020-01-01T00:00:00+00:00")
    store.put(key(6), old)
    store.put(key(7), old)
    reader = ResponseStore(store.root)
    assert reader.get(key(1)) == reply(1)
    with pytest.raises(ValueError, match="which replies to keep"):
        store.prune()
    assert store.prune(keep={key(6)}, older_than=datetime(2021, 1, 1, tzinfo=UTC)) == 1  # 7
    assert store.prune(older_than=datetime(2021, 1, 1, tzinfo=UTC)) == 1  # 6
    assert store.prune(keep={key(1), key(2), key(50)}) == 4  # 0, 3, 4, 5
    for s in (store, reader):
        assert [n for n in range(8) if s.get(key(n))] == [1, 2]
    assert store.prune(keep=[]) == 2
    assert (store.keys(), store.damaged) == ([], [])


# Budgets


CALL = {
    "call_key": "k1", "build_id": "b1", "dataset": "demo", "episode_index": 3, "label_run": "run", "stage": "plan",
    "model": "m", "prompt_version": "v", "num_images": 16,
}  # fmt: skip


def test_money_is_held_back_at_its_estimate_and_counted_at_its_truth(store: ResponseStore):
    first = store.reserve(CALL, 0.5, max_cost=1.0)
    store.reserve(CALL, 0.5, max_cost=1.0)
    with pytest.raises(VlmError, match=r"1 USD .* no room"):
        store.reserve(CALL, 0.25, max_cost=1.0)
    store.settle(first, status="ok", cost_usd=0.125)
    assert store.spent("b1") == (2, 0.625)
    store.reserve(CALL, 0.25, max_cost=1.0)
    assert store.spent("b1") == (3, 0.875)


def test_what_was_under_way_in_a_killed_process_stays_counted(store: ResponseStore):
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
