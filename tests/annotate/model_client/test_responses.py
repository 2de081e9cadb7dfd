"""A stored reply is never lost or mixed up, whatever is killed or damaged."""

import hashlib
import random
import resource
import signal
import subprocess
import sys
import threading
import time
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

from annotate.model_client.responses import ResponseStore, StoredReply, StoreStats, decode, encode
from core.paths import ROOT

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


def test_a_reply_comes_back_as_it_was(store: ResponseStore):
    assert store.get(key(0)) is None
    store.put(key(0), REPLY)
    assert store.get(key(0)) == REPLY
    assert ResponseStore(store.root).get(key(0)) == REPLY
    assert (store.get(key(1)), store.damaged) == (None, [])


def test_packing_keeps_every_reply_readable(store: ResponseStore):
    fill(store, range(20))
    assert store.pack([key(n) for n in range(10)] + [key(99)], "demo/00001") == 10
    assert store.pack([key(n) for n in range(5, 15)], "demo/00001") == 5, "the packed ones are not packed again"
    assert store.pack([key(n) for n in range(15)], "demo/00001") == 0
    for reader in (store, ResponseStore(store.root)):
        assert [reader.get(key(n)) for n in range(20)] == [reply(n) for n in range(20)]
        stats = reader.stats()
        assert (stats.loose, stats.packed, stats.packs) == (5, 15, 2)
    assert dict(store.replies()) == {key(n): reply(n) for n in range(20)}
    packs = sorted(store.root.glob("packs/*.pack"))
    assert all(p.name.startswith("demo_00001-") for p in packs)
    assert stats.bytes == sum(p.stat().st_size for p in [*packs, *store.root.glob("??/*.reply")])
    assert store.damaged == []


@pytest.mark.parametrize("what", ["cut", "empty", "one bit", "another key", "no JSON"])
def test_a_damaged_reply_is_absent_and_reported(store: ResponseStore, what: str):
    store.put(key(0), REPLY)
    (path,) = store.root.glob("??/*.reply")
    data = bytearray(path.read_bytes())
    data[100] ^= 1
    path.write_bytes({
        "cut": bytes(data[:200]), "empty": b"", "one bit": bytes(data), "another key": encode(key(1), REPLY),
        "no JSON": hashlib.sha256(b"[").hexdigest().encode() + b"\n[",
    }[what])  # fmt: skip
    assert store.get(key(0)) is None
    assert store.damaged == [f"damaged reply {key(0)[:12]} in {path}: counts as never asked"]
    assert store.pack([key(0)], "p") == 0
    store.put(key(0), REPLY)
    assert store.get(key(0)) == REPLY


def test_a_damaged_pack_loses_what_is_damaged_only(store: ResponseStore):
    fill(store, range(3))
    store.pack([key(n) for n in range(3)], "p")
    (pack,) = store.root.glob("packs/*.pack")
    data = bytearray(pack.read_bytes())
    data[-10] ^= 255  # of the greatest key
    pack.write_bytes(data)
    lost, *kept = sorted(range(3), key=key, reverse=True)
    assert store.get(key(lost)) is None
    assert [store.get(key(n)) for n in kept] == [reply(n) for n in kept]
    assert store.damaged == [f"damaged reply {key(lost)[:12]} in pack {pack.name}: counts as never asked"]
    store.put(key(lost), reply(lost))  # asked again
    assert store.get(key(lost)) == reply(lost)
    assert store.pack([key(n) for n in range(3)], "p") == 1
    (store.root / "packs" / "index.sqlite").unlink()
    again = ResponseStore(store.root)
    assert [again.get(key(n)) for n in range(3)] == [reply(n) for n in range(3)]
    pack.unlink()
    once_more = ResponseStore(store.root)
    assert [once_more.get(key(n)) for n in (lost, *kept)] == [reply(lost), None, None]
    assert once_more.damaged == [f"pack {pack.name} is gone: its replies count as never asked"]


@pytest.mark.parametrize("how", ["lost", "overwritten", "overwritten while open"])
def test_the_index_is_made_again(store: ResponseStore, how: str):
    fill(store, range(5))
    store.pack([key(n) for n in range(5)], "p")
    index = store.root / "packs" / "index.sqlite"
    store._packs._db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    if how == "lost":
        index.unlink()
    else:
        index.write_bytes(b"\xff" * index.stat().st_size)
    again = store if how == "overwritten while open" else ResponseStore(store.root)
    assert [again.get(key(n)) for n in range(5)] == [reply(n) for n in range(5)]
    assert [ResponseStore(store.root).get(key(n)) for n in range(5)] == [reply(n) for n in range(5)]


def test_a_pack_cut_short_keeps_its_beginning(store: ResponseStore):
    fill(store, range(3))
    store.pack([key(n) for n in range(3)], "p")
    (pack,) = store.root.glob("packs/*.pack")
    pack.write_bytes(pack.read_bytes()[:-5])
    (store.root / "packs" / "index.sqlite").unlink()
    again = ResponseStore(store.root)
    *kept, lost = sorted(range(3), key=key)
    assert [again.get(key(n)) for n in kept] == [reply(n) for n in kept]
    assert again.get(key(lost)) is None
    assert "cut short" in again.damaged[0]


def test_what_a_kill_amid_packing_leaves_is_mended(store: ResponseStore):
    fill(store, range(4))
    loose = {path: path.read_bytes() for path in store.root.glob("??/*.reply")}
    store.pack([key(n) for n in range(4)], "p")
    for path, data in loose.items():  # killed before the loose files were deleted
        path.write_bytes(data)
    index = store.root / "packs" / "index.sqlite"
    index.unlink()  # killed before the index knew
    again = ResponseStore(store.root)
    assert again.stats().packed == 4
    assert again.pack([key(n) for n in range(4)], "p") == 0
    assert (again.stats().loose, again.stats().packed, again.stats().packs) == (0, 4, 1)
    assert [again.get(key(n)) for n in range(4)] == [reply(n) for n in range(4)]


def test_prune(store: ResponseStore):
    fill(store, range(6))
    old = replace(REPLY, created_at="2020-01-01T00:00:00+00:00")
    store.put(key(6), old)
    store.put(key(7), old)
    store.pack([key(n) for n in (0, 1, 6)], "p")
    reader = ResponseStore(store.root)
    assert reader.get(key(1)) == reply(1)
    with pytest.raises(ValueError, match="which replies to keep"):
        store.prune()
    assert store.prune(keep={key(6)}, older_than=datetime(2021, 1, 1, tzinfo=UTC)) == 1  # 7
    assert store.prune(older_than=datetime(2021, 1, 1, tzinfo=UTC)) == 1  # 6, packed
    assert store.prune(keep={key(1), key(2), key(50)}) == 4  # 0 packed; 3, 4, 5 loose
    for s in (store, reader):
        assert [n for n in range(8) if s.get(key(n))] == [1, 2]
    assert store.prune(keep=[]) == 2
    assert (store.stats(), store.damaged) == (StoreStats(0, 0, 0, 0), [])


def test_readers_never_miss_a_reply_while_it_is_packed_and_pruned(store: ResponseStore):
    fill(store, range(60))
    reader, missing, done = ResponseStore(store.root), [], threading.Event()

    def read() -> None:
        while not done.is_set():
            missing.extend(n for n in range(0, 60, 7) if reader.get(key(n)) != reply(n))

    thread = threading.Thread(target=read)
    thread.start()
    for start in range(0, 60, 10):
        store.pack([key(n) for n in range(start, start + 10)], f"p{start}")
    for n in range(60):
        if n % 7 and n % 3 == 0:
            store.prune(keep={key(m) for m in range(60) if m % 7 == 0 or m > n})
    done.set()
    thread.join()
    assert (missing, reader.damaged) == ([], [])


WORKER = """
import hashlib, sys, itertools
from dataclasses import replace
from pathlib import Path
from annotate.model_client.responses import ResponseStore, decode
def key(n): return hashlib.sha256(str(n).encode()).hexdigest()
def reply(n): return replace(REPLY, value={"n": n}, text=f'{{"n": {n}}}')
REPLY = decode(key(0), Path(sys.argv[3]).read_bytes())
store = ResponseStore(Path(sys.argv[1]))
assert store.damaged == [], store.damaged
for n in itertools.count(int(sys.argv[2])):
    store.put(key(n), reply(n))
    print(n, flush=True)
    if n % 5 == 4:
        store.pack([key(m) for m in range(n - 4, n + 1)], "p")
    if n % 20 == 19:
        store.prune(keep={key(m) for m in range(n + 1) if m % 2})
"""


def test_a_write_that_takes_part_of_the_bytes_leaves_no_reply(store: ResponseStore):
    """As the kernel does at the last free bytes of a disk: it takes what fits and says so, and only then fails."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, limits[1]))
    try:
        with pytest.raises(OSError, match="File too large"):
            store.put(key(1), REPLY)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert store.get(key(1)) is None
    assert store.stats().loose == 0


def test_what_a_kill_amid_writing_leaves_is_neither_reply_nor_pack(
    store: ResponseStore, monkeypatch: pytest.MonkeyPatch
):
    fill(store, range(3))

    def killed(source: Path, target: Path) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("os.replace", killed)
        patch.setattr(Path, "unlink", lambda self, missing_ok=False: None)
        with pytest.raises(KeyboardInterrupt):
            store.put(key(3), reply(3))
        with pytest.raises(KeyboardInterrupt):
            store.pack([key(0), key(1)], "p")
    assert len(list(store.root.glob("*/.tmp-*"))) == 2
    again = ResponseStore(store.root)
    assert dict(again.replies()) == {key(n): reply(n) for n in range(3)}
    assert (again.stats().loose, again.stats().packs, again.damaged) == (3, 0, [])


def test_a_kill_at_any_moment_loses_nothing(store: ResponseStore):
    stored, start = set(), 0
    given = store.root.parent / "given"
    given.write_bytes(encode(key(0), REPLY))
    for seed in range(10):
        worker = subprocess.Popen(
            [sys.executable, "-c", WORKER, store.root, str(start), given], cwd=ROOT, stdout=subprocess.PIPE, text=True
        )
        assert worker.stdout is not None
        first = worker.stdout.readline()
        time.sleep(random.Random(seed).uniform(0, 0.15))
        worker.send_signal(signal.SIGKILL)
        stored |= {int(line) for line in [first, *worker.stdout.read().split()] if line.strip()}
        worker.wait()
        start = max(stored) + 1
    assert len(stored) > 30, "the workers did something"
    last = ResponseStore(store.root)
    must = [n for n in sorted(stored) if n % 2]
    assert [last.get(key(n)) for n in must] == [reply(n) for n in must]
    assert last.damaged == []


def test_the_bytes_are_checked_before_they_are_parsed():
    data = encode(key(0), REPLY)
    assert decode(key(0), data) == REPLY
    with pytest.raises(ValueError, match="not the bytes"):
        decode(key(0), data + b" ")
