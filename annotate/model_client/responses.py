"""Replies of models, kept by the key of their call: each is on disk before it is used."""

import hashlib
import json
import time
from collections.abc import Collection, Iterator
from dataclasses import MISSING, asdict, dataclass, fields
from datetime import datetime
from pathlib import Path
from typing import Any

from filelock import FileLock

from annotate.model_client.calls import canonical
from annotate.model_client.durable import write_durably
from annotate.model_client.packs import Packs

LEFT_BEHIND_S = 3600.0  # a temporary file this old belongs to a process that was killed


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


@dataclass(frozen=True)
class StoreStats:
    loose: int  # replies in files of their own
    packed: int
    packs: int
    bytes: int


class ResponseStore:
    """Safe for several processes and threads. A damaged reply counts as absent, and is in `damaged`, a line each.

    A new reply is a file of its own; `pack` moves the replies of a finished partition into one file. A reply is
    readable at every moment of that, and where a process is killed on the way nothing is lost.
    """

    def __init__(self, root: Path):
        self.root = root
        self.damaged: list[str] = []
        root.mkdir(parents=True, exist_ok=True)
        self._lock = FileLock(root / ".lock")  # of packing and pruning; readers and `put` need none
        self._packs = Packs(root / "packs", self._lock, self.damaged.append)

    def get(self, key: str) -> StoredReply | None:
        """Loose first: a loose reply beside a packed one was asked for again, as the packed one was damaged."""
        data = self._loose(key)
        if data is not None:
            reply = self._decoded(key, data, str(self._path(key)))
            if reply is not None:
                return reply
        packed = self._packs.read(key)
        return None if packed is None else self._decoded(key, *packed)

    def put(self, key: str, reply: StoredReply) -> None:
        """On disk, also after a power cut, when this returns."""
        write_durably(self._path(key), encode(key, reply))

    def pack(self, keys: Collection[str], name: str) -> int:
        """Move the loose replies among `keys` into one file, called after `name`; how many were moved."""
        with self._lock:
            unpacked: dict[str, bytes] = {}
            packed_already: list[str] = []
            for key in sorted(set(keys)):
                # A damaged loose reply stays out of the pack: it counts as never asked
                data = self._sound_loose(key)
                if data is None:
                    continue
                packed = self._packs.read(key)
                if packed is not None and packed[0] == data:
                    packed_already.append(key)  # a process was killed between packing and deleting
                else:
                    unpacked[key] = data
            # The pack is on disk before the loose files go: every reply is readable at every moment
            if unpacked:
                self._packs.write(name, unpacked)
            for key in (*unpacked, *packed_already):
                self._path(key).unlink(missing_ok=True)
        return len(unpacked)

    def replies(self) -> Iterator[tuple[str, StoredReply]]:
        for key in self._keys():
            reply = self.get(key)
            if reply is not None:
                yield key, reply

    def stats(self) -> StoreStats:
        sizes = [path.stat().st_size for path in self._files()]
        packed, packs, packed_bytes = self._packs.stats()
        return StoreStats(len(sizes), packed, packs, sum(sizes) + packed_bytes)

    def prune(self, keep: Collection[str] | None = None, older_than: datetime | None = None) -> int:
        """Delete replies not in `keep`, or made before `older_than`; with both, what both would delete. How many.

        `older_than` needs a time zone. Damaged replies are no replies: they are neither kept nor counted.
        """
        if keep is None and older_than is None:
            raise ValueError("prune needs to know which replies to keep")
        with self._lock:
            # Unreadable replies go as well: nothing can be made of them
            pruned, unreadable = self._to_prune(keep, older_than)
            self._packs.remove(pruned | unreadable)
            for key in pruned | unreadable:
                self._path(key).unlink(missing_ok=True)
            self._delete_left_behind()
        return len(pruned)

    def _to_prune(self, keep: Collection[str] | None, older_than: datetime | None) -> tuple[set[str], set[str]]:
        """The keys of the replies to delete, and those of replies that cannot be read."""
        pruned: set[str] = set()
        unreadable: set[str] = set()
        for key in self._keys():
            reply = self.get(key)
            if reply is None:
                unreadable.add(key)
                continue
            # A condition that was not given holds for every reply, so that the two can be joined by `and`
            is_unwanted = keep is None or key not in keep
            is_old = older_than is None or datetime.fromisoformat(reply.created_at) < older_than
            if is_unwanted and is_old:
                pruned.add(key)
        return pruned, unreadable

    def close(self) -> None:
        self._packs.close()

    def _delete_left_behind(self) -> None:
        """Temporary files of processes that were killed."""
        for path in self.root.glob("*/.tmp-*"):
            if time.time() - path.stat().st_mtime > LEFT_BEHIND_S:
                path.unlink(missing_ok=True)

    def _path(self, key: str) -> Path:
        return self.root / key[:2] / f"{key}.reply"

    def _files(self) -> Iterator[Path]:
        return self.root.glob("[0-9a-f][0-9a-f]/*.reply")

    def _keys(self) -> list[str]:
        return sorted({path.stem for path in self._files()} | set(self._packs.keys()))

    def _loose(self, key: str) -> bytes | None:
        try:
            return self._path(key).read_bytes()
        except FileNotFoundError:
            return None

    def _sound_loose(self, key: str) -> bytes | None:
        """The bytes of a loose reply that can be read."""
        data = self._loose(key)
        if data is None or self._decoded(key, data, str(self._path(key))) is None:
            return None
        return data

    def _decoded(self, key: str, data: bytes, where: str) -> StoredReply | None:
        try:
            return decode(key, data)
        except (ValueError, KeyError, TypeError):
            self.damaged.append(f"damaged reply {key[:12]} in {where}: counts as never asked")
            return None


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
