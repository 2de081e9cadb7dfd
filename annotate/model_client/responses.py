"""Replies of models, kept by the key of their call: each is on disk before it is used.

One SQLite file holds them, and beside them what each call cost (ledger.py). Replies of earlier versions, in files and
packs of their own, are taken over when the store is first opened.
"""

import hashlib
import json
import sqlite3
import struct
import threading
import zlib
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager, suppress
from dataclasses import MISSING, asdict, dataclass, fields
from datetime import datetime
from pathlib import Path
from typing import Any

from annotate.model_client.calls import VlmError, canonical

FILE = "replies.sqlite"
MAX_REPLY_BYTES = 64 << 20  # uncompressed: a damaged reply must not fill the memory
PATIENCE_S = 60.0  # for another process's transaction, which takes milliseconds
SCHEMA = """
CREATE TABLE IF NOT EXISTS replies (key TEXT PRIMARY KEY, created_at TEXT NOT NULL, data BLOB NOT NULL);
"""
# A pack of an earlier version: the mark, then per reply its key, its length, and itself compressed by zlib
PACK_MARK, PACK_HEAD = b"vlm replies 1\n", struct.Struct(">32sI")


@dataclass(frozen=True)
class StoredReply:
    """A reply with all that traces a label back to it."""

    text: str  # as the server sent it
    value: dict[str, Any]  # parsed, valid for the schema
    prompt_tokens: int
    completion_tokens: int
    latency_s: float
    model: str  # as the server named it
    model_root: str | None  # what the server loaded under that name, where it told
    stage: str
    prompt_version: str
    images: tuple[str, ...]  # sha256 of the pictures shown, in order
    params: dict[str, Any]  # of the sampling, as sent
    created_at: str  # ISO 8601, UTC
    # What was asked, as it was sent: empty in replies of versions that did not keep it. Texts, and {"sha256": ...} of
    # each picture, in order
    system: str = ""
    content: tuple[Any, ...] = ()


class Database:
    """One SQLite file, shared by several processes and threads. What was committed survives kills and power cuts.

    Raises VlmError for a file that is no such database.
    """

    def __init__(self, path: Path, schema: str):
        self.path = path
        path.parent.mkdir(parents=True, exist_ok=True)
        self.lock = threading.RLock()
        self.db = sqlite3.connect(path, timeout=PATIENCE_S, isolation_level=None, check_same_thread=False)
        self.db.row_factory = sqlite3.Row
        try:
            for setting in ("auto_vacuum=FULL", "journal_mode=WAL", "synchronous=FULL"):
                self.db.execute(f"PRAGMA {setting}")
            self.db.executescript(schema)
        except sqlite3.OperationalError:  # locked, or the disk: not the file's fault
            self.db.close()
            raise
        except sqlite3.DatabaseError as e:
            self.db.close()
            raise self._damage(e) from None

    @contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        with self.lock:
            self.db.execute("BEGIN IMMEDIATE")
            try:
                yield self.db
                self.db.execute("COMMIT")
            except BaseException:
                with suppress(sqlite3.OperationalError):  # SQLite has taken it back by itself where the disk is full
                    self.db.execute("ROLLBACK")
                raise

    def close(self) -> None:
        with self.lock:
            self.db.close()

    def _damage(self, e: sqlite3.DatabaseError) -> VlmError:
        what = f"{self.path} is damaged, or no database of replies and costs ({e})"
        return VlmError("refused", f"{what}: save what it holds with sqlite3's .recover, or move it away")


class ResponseStore(Database):
    """Safe for several processes and threads. A damaged reply counts as absent, and is in `damaged`, a line each."""

    def __init__(self, root: Path):
        self.root = root
        self.damaged: list[str] = []
        super().__init__(root / FILE, SCHEMA)
        self._take_over()

    def get(self, key: str) -> StoredReply | None:
        try:
            with self.lock:
                row = self.db.execute("SELECT data FROM replies WHERE key = ?", (key,)).fetchone()
        except sqlite3.OperationalError:
            raise
        except sqlite3.DatabaseError as e:
            raise self._damage(e) from None
        try:
            return decode(key, unpacked(row["data"])) if row else None
        except (ValueError, KeyError, TypeError):
            self.damaged.append(f"damaged reply {key[:12]} in {self.path}: counts as never asked")
            return None

    def put(self, key: str, reply: StoredReply) -> None:
        """On disk, also after a power cut, when this returns."""
        row = (key, reply.created_at, zlib.compress(encode(key, reply)))
        with self.transaction() as db:
            db.execute("INSERT OR REPLACE INTO replies VALUES (?, ?, ?)", row)

    def keys(self) -> list[str]:
        with self.lock:
            return [row["key"] for row in self.db.execute("SELECT key FROM replies ORDER BY key")]

    def replies(self) -> Iterator[tuple[str, StoredReply]]:
        for key in self.keys():
            reply = self.get(key)
            if reply is not None:
                yield key, reply

    def prune(self, keep: Collection[str] | None = None, older_than: datetime | None = None) -> int:
        """Delete replies not in `keep`, or made before `older_than`; with both, what both would delete. How many.

        `older_than` needs a time zone. Damaged replies go as well, and are not counted: nothing can be made of them.
        """
        if keep is None and older_than is None:
            raise ValueError("prune needs to know which replies to keep")
        pruned, unreadable = [], []
        for key in self.keys():
            reply = self.get(key)
            if reply is None:
                unreadable.append(key)
                continue
            is_unwanted = keep is None or key not in keep
            is_old = older_than is None or datetime.fromisoformat(reply.created_at) < older_than
            if is_unwanted and is_old:
                pruned.append(key)
        with self.transaction() as db:
            db.executemany("DELETE FROM replies WHERE key = ?", [(key,) for key in (*pruned, *unreadable)])
        return len(pruned)

    def _take_over(self) -> None:
        """Take replies of earlier versions into this file, and delete theirs once they are in it.

        A file of its own counts before a pack: it was asked for again, since the packed one was damaged.
        """
        loose = sorted(self.root.glob("[0-9a-f][0-9a-f]/*.reply"))
        packs = sorted(self.root.glob("packs/*.pack"))
        for paths, read in ((loose, _loose), (packs, self._packed)):
            for start in range(0, len(paths), 1000):
                part = paths[start : start + 1000]
                with self.transaction() as db:
                    for path in part:
                        db.executemany("INSERT OR IGNORE INTO replies VALUES (?, ?, ?)", self._sound(path, read))
                for path in part:
                    path.unlink(missing_ok=True)
        if packs:
            for path in self.root.glob("packs/index.sqlite*"):
                path.unlink(missing_ok=True)

    def _sound(
        self, path: Path, read: Callable[[Path], Iterator[tuple[str, bytes]]]
    ) -> Iterator[tuple[str, str, bytes]]:
        """Rows of the replies in a file that can be read; the others are `damaged`."""
        try:
            for key, data in read(path):
                try:
                    yield key, decode(key, unpacked(data)).created_at, data
                except (ValueError, KeyError, TypeError):
                    self.damaged.append(f"damaged reply {key[:12]} in {path}: counts as never asked")
        except FileNotFoundError:  # another process took it over meanwhile
            return

    def _packed(self, path: Path) -> Iterator[tuple[str, bytes]]:
        data = path.read_bytes()
        at = len(PACK_MARK) if data.startswith(PACK_MARK) else len(data)
        while at + PACK_HEAD.size <= len(data):
            key, length = PACK_HEAD.unpack_from(data, at)
            at += PACK_HEAD.size + length
            yield key.hex(), data[at - length : at]


def _loose(path: Path) -> Iterator[tuple[str, bytes]]:
    yield path.stem, zlib.compress(path.read_bytes())


def unpacked(data: bytes) -> bytes:
    """Raises ValueError when it is damaged or would be unreasonably large."""
    inflate = zlib.decompressobj()
    try:
        whole = inflate.decompress(data, MAX_REPLY_BYTES)
    except zlib.error as e:
        raise ValueError(str(e)) from None
    if not inflate.eof:
        raise ValueError("cut short")
    return whole


def encode(key: str, reply: StoredReply) -> bytes:
    """One line with the sha256 of the rest, then JSON."""
    body = canonical({"key": key, **asdict(reply)}).encode()
    return hashlib.sha256(body).hexdigest().encode() + b"\n" + body


def decode(key: str, data: bytes) -> StoredReply:
    """Raises ValueError, KeyError or TypeError on anything that `encode` did not write for this key."""
    # The hash comes first: nothing of a damaged body is parsed
    digest, _, body = data.partition(b"\n")
    if digest.decode() != hashlib.sha256(body).hexdigest():
        raise ValueError("not the bytes that were written")
    stored = json.loads(body)
    if stored["key"] != key:
        raise ValueError("the reply to another call")
    # A field with a default may be missing: replies of older versions do not have it
    values = {f.name: stored[f.name] for f in fields(StoredReply) if f.name in stored or f.default is MISSING}
    values["images"] = tuple(values["images"])
    values["content"] = tuple(values.get("content", ()))
    return StoredReply(**values)
