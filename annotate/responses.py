"""Replies of models, kept by the key of their call: each is on disk before it is used."""

from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any


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


@dataclass(frozen=True)
class StoreStats:
    loose: int
    packed: int
    packs: int
    bytes: int


class ResponseStore:
    """Safe for several processes and threads. A damaged reply counts as absent, and is in `damaged`."""

    def __init__(self, root: Path):
        self.root = root
        self.damaged: list[str] = []  # one line each

    def get(self, key: str) -> StoredReply | None:
        raise NotImplementedError

    def put(self, key: str, reply: StoredReply) -> None:
        raise NotImplementedError

    def pack(self, keys: Collection[str], name: str) -> int:
        """Compact the loose replies among `keys` into one file; how many went in."""
        raise NotImplementedError

    def stats(self) -> StoreStats:
        raise NotImplementedError

    def prune(self, keep: Collection[str] | None = None, older_than: datetime | None = None) -> int:
        """Delete replies not in `keep`, or made before `older_than`; with both, what both would delete. How many."""
        raise NotImplementedError
