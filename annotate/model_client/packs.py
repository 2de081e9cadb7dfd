"""Many replies in few files, with one index of all.

A pack is MAGIC, then per reply: its key (32 bytes), the length of what follows (uint32), the reply compressed by zlib.
The packs are the truth; the index, one SQLite file, is made again from them when it is lost or damaged.
"""

import hashlib
import re
import sqlite3
import struct
import threading
import zlib
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import closing
from pathlib import Path
from typing import NamedTuple

from filelock import BaseFileLock

from annotate.model_client.durable import write_durably

MAGIC = b"vlm replies 1\n"
HEAD = struct.Struct(">32sI")
MAX_REPLY_BYTES = 64 << 20  # uncompressed: a damaged pack must not fill the memory
PATIENCE_S = 60.0
SCHEMA = """
CREATE TABLE IF NOT EXISTS packs (id INTEGER PRIMARY KEY, name TEXT UNIQUE NOT NULL);
CREATE TABLE IF NOT EXISTS replies (
    key BLOB PRIMARY KEY, pack INTEGER NOT NULL, offset INTEGER NOT NULL, length INTEGER NOT NULL
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS by_pack ON replies (pack);
"""


class PackedPlace(NamedTuple):
    """Where a compressed reply lies."""

    pack: str  # name of the file
    offset: int
    length: int


class PackedReply(NamedTuple):
    """A reply as a pack holds it."""

    key: bytes
    offset: int  # of the compressed reply in the file
    compressed: bytes


class Packs:
    """`lock` is held by who calls `write` or `remove`; `read` needs none. `report` gets a line on each damage."""

    def __init__(self, folder: Path, lock: BaseFileLock, report: Callable[[str], object]):
        self.folder = folder
        self._report = report
        self._lock = lock
        self._guard = threading.RLock()
        folder.mkdir(parents=True, exist_ok=True)
        with lock:
            try:
                self._db = self._open()
                self._mend()
            except sqlite3.DatabaseError as e:
                self._make_again(e)

    def read(self, key: str) -> tuple[bytes, str] | None:
        """The reply as it was written, and the pack that holds it."""
        for _ in range(2):  # a pack may be replaced by a smaller one between the look into the index and the reading
            place = self._find(key)
            if place is None:
                return None
            try:
                with (self.folder / place.pack).open("rb") as f:
                    f.seek(place.offset)
                    data = f.read(place.length)
            except FileNotFoundError:
                continue
            try:
                return unpacked(data), place.pack
            except ValueError:
                self._report(f"damaged reply {key[:12]} in pack {place.pack}: counts as never asked")
                return None
        self._report(f"pack {place.pack} is gone: its replies count as never asked")
        return None

    def write(self, name: str, replies: Mapping[str, bytes]) -> None:
        """A new pack; when this returns it is on disk and in the index."""
        self._add(name, ((key, zlib.compress(data)) for key, data in sorted(replies.items())))

    def remove(self, keys: Collection[str]) -> None:
        """Write the packs that hold any of `keys` again without them."""
        removed = {bytes.fromhex(key) for key in keys}
        places = map(self._find, keys)
        names = {place.pack for place in places if place}
        for name in sorted(names):
            self._write_again(name, removed)

    def _write_again(self, name: str, removed: set[bytes]) -> None:
        """Replace a pack by one without the removed replies; by none, if it has no others."""
        path = self.folder / name
        # What the index finds elsewhere is a second copy: it does not go into the new pack
        pack, indexed = self._indexed(name)
        remaining = indexed - removed
        rest: list[tuple[str, bytes]] = []
        if path.exists():
            rest = [(reply.key.hex(), reply.compressed) for reply in records(path) if reply.key in remaining]
        # The new pack is on disk and in the index before the old one goes
        if rest:
            self._add(name.rpartition("-")[0], rest)
        with self._guard, self._db:
            self._db.execute("DELETE FROM replies WHERE pack = ?", (pack,))
            self._db.execute("DELETE FROM packs WHERE id = ?", (pack,))
        path.unlink(missing_ok=True)

    def _indexed(self, name: str) -> tuple[int, set[bytes]]:
        """A pack's id, and the keys of the replies that the index finds in it."""
        with self._guard:
            (pack,) = self._db.execute("SELECT id FROM packs WHERE name = ?", (name,)).fetchone()
            return pack, {key for (key,) in self._db.execute("SELECT key FROM replies WHERE pack = ?", (pack,))}

    def keys(self) -> list[str]:
        with self._guard:
            return [key.hex() for (key,) in self._db.execute("SELECT key FROM replies")]

    def stats(self) -> tuple[int, int, int]:
        """Replies, packs, bytes."""
        with self._guard:
            (replies,) = self._db.execute("SELECT count(*) FROM replies").fetchone()
        sizes = [path.stat().st_size for path in self.folder.glob("*.pack")]
        return replies, len(sizes), sum(sizes)

    def close(self) -> None:
        with self._guard:
            self._db.close()

    def _open(self) -> sqlite3.Connection:
        db = sqlite3.connect(self.folder / "index.sqlite", timeout=PATIENCE_S, check_same_thread=False)
        try:
            db.execute("PRAGMA journal_mode=WAL")
            db.execute("PRAGMA synchronous=FULL")
            db.executescript(SCHEMA)
        except sqlite3.DatabaseError:
            db.close()
            raise
        return db

    def _mend(self) -> None:
        """Index packs that a killed process left unindexed, and forget those that are gone."""
        indexed = {name for (name,) in self._db.execute("SELECT name FROM packs")}
        on_disk = {path.name for path in self.folder.glob("*.pack")}
        for name in sorted(on_disk - indexed):
            self._index(name)
        for name in sorted(indexed - on_disk):
            self._report(f"pack {name} is gone: its replies count as never asked")
            with self._db:
                self._db.execute("DELETE FROM replies WHERE pack = (SELECT id FROM packs WHERE name = ?)", (name,))
                self._db.execute("DELETE FROM packs WHERE name = ?", (name,))

    def _make_again(self, damage: sqlite3.DatabaseError) -> None:
        if isinstance(damage, sqlite3.OperationalError):  # locked, or the disk: not the index's fault
            raise damage
        self._report(f"damaged index of packed replies ({damage}): made again from the packs")
        with self._lock, self._guard:
            for path in self.folder.glob("index.sqlite*"):
                path.unlink()
            self._db = self._open()
            self._mend()

    def _add(self, name: str, compressed: Iterator[tuple[str, bytes]] | list[tuple[str, bytes]]) -> None:
        """Write a pack of these replies and index it. Its name has a hash of its bytes: equal packs are one file."""
        data = bytearray(MAGIC)
        for key, packed in compressed:
            data += HEAD.pack(bytes.fromhex(key), len(packed))
            data += packed
        stem = re.sub(r"[^A-Za-z0-9._-]", "_", name).lstrip(".")[:100]
        file = f"{stem}-{hashlib.sha256(data).hexdigest()[:12]}.pack"
        write_durably(self.folder / file, bytes(data))
        self._index(file)

    def _index(self, name: str) -> None:
        rows = [(reply.key, reply.offset, len(reply.compressed)) for reply in self._sound_records(name)]
        with self._guard, self._db:
            self._db.execute("INSERT OR IGNORE INTO packs (name) VALUES (?)", (name,))
            (pack,) = self._db.execute("SELECT id FROM packs WHERE name = ?", (name,)).fetchone()
            self._db.executemany(
                "INSERT OR REPLACE INTO replies VALUES (?, ?, ?, ?)",
                ((key, pack, offset, length) for key, offset, length in rows),
            )

    def _sound_records(self, name: str) -> Iterator[PackedReply]:
        for reply in records(self.folder / name, self._report):
            try:
                unpacked(reply.compressed)
            except ValueError:  # a sound copy in another pack keeps its place in the index
                self._report(f"damaged reply {reply.key.hex()[:12]} in pack {name}: counts as never asked")
                continue
            yield reply

    def _find(self, key: str) -> PackedPlace | None:
        query = "SELECT name, offset, length FROM replies JOIN packs ON packs.id = pack WHERE key = ?"
        with self._guard:
            try:
                row = self._db.execute(query, (bytes.fromhex(key),)).fetchone()
            except sqlite3.DatabaseError as e:
                self._make_again(e)
                row = self._db.execute(query, (bytes.fromhex(key),)).fetchone()
        return PackedPlace(*row) if row else None


def records(path: Path, report: Callable[[str], object] = lambda line: None) -> Iterator[PackedReply]:
    """The replies of a pack, up to the first damage of its frame."""
    size = path.stat().st_size
    with closing(path.open("rb")) as f:
        if f.read(len(MAGIC)) != MAGIC:
            report(f"{path.name} is no pack of replies: left alone")
            return
        while f.tell() < size:
            # A head or a reply that reaches beyond the end was cut off
            head = f.read(HEAD.size)
            offset = f.tell()
            key, length = HEAD.unpack(head) if len(head) == HEAD.size else (b"", size)
            if offset + length > size:
                report(f"pack {path.name} is cut short: replies after byte {offset} count as never asked")
                return
            yield PackedReply(key, offset, f.read(length))


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
