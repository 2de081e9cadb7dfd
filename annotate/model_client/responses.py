"""Replies of models by the key of their call, and what each call cost, in one SQLite file of a workspace.

A reply is on disk before it is used. A call is paid for before it is sent, and settled after its
answer.
"""

import hashlib
import json
import sqlite3
import threading
import zlib
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields
from datetime import datetime
from pathlib import Path
from typing import Any

from annotate.model_client.calls import VlmError, canonical

FILE = "replies.sqlite"
PATIENCE_S = 60.0  # for another process's transaction, which takes milliseconds
# One row of `attempts` per request sent; `spent` has the sums, so that a reservation does not add up millions of rows
SCHEMA = """
CREATE TABLE IF NOT EXISTS replies (key TEXT PRIMARY KEY, created_at TEXT NOT NULL, data BLOB NOT NULL);
CREATE TABLE IF NOT EXISTS attempts (
    id INTEGER PRIMARY KEY,
    call_key TEXT NOT NULL, build_id TEXT NOT NULL, dataset TEXT NOT NULL, episode_index INTEGER NOT NULL,
    label_run TEXT NOT NULL, stage TEXT NOT NULL, model TEXT NOT NULL, prompt_version TEXT NOT NULL,
    num_images INTEGER NOT NULL,
    prompt_tokens INTEGER NOT NULL DEFAULT 0, completion_tokens INTEGER NOT NULL DEFAULT 0,
    latency_s REAL NOT NULL DEFAULT 0, cost_usd REAL NOT NULL, status TEXT NOT NULL, error TEXT
);
CREATE INDEX IF NOT EXISTS by_build ON attempts (build_id, dataset, episode_index);
CREATE TABLE IF NOT EXISTS spent (
    build_id TEXT PRIMARY KEY, calls INTEGER NOT NULL, cost_usd REAL NOT NULL
) WITHOUT ROWID;
"""
UNSETTLED = "sent"  # status while under way, and for good when the process was killed meanwhile


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


class ResponseStore:
    """Safe for several processes and threads; what was committed survives kills and power cuts.

    A damaged reply counts as absent, and is in `damaged`, a line each. Raises VlmError for a file
    that is damaged as a whole, or no such database.
    """

    def __init__(self, root: Path):
        self.root = root
        self.path = root / FILE
        self.damaged: list[str] = []
        root.mkdir(parents=True, exist_ok=True)
        self._lock = threading.RLock()
        self.db = sqlite3.connect(
            self.path, timeout=PATIENCE_S, isolation_level=None, check_same_thread=False
        )
        self.db.row_factory = sqlite3.Row
        with self._database():
            for setting in ("auto_vacuum=FULL", "journal_mode=WAL", "synchronous=FULL"):
                self.db.execute(f"PRAGMA {setting}")
            self.db.executescript(SCHEMA)

    @contextmanager
    def _database(self) -> Iterator[sqlite3.Connection]:
        with self._lock:
            try:
                yield self.db
            except sqlite3.OperationalError:  # locked, or the disk: not the file's fault
                raise
            except sqlite3.DatabaseError as e:
                message = f"{self.path} is damaged, or no database of replies and costs ({e})"
                raise VlmError(
                    "refused",
                    f"{message}: save what it holds by sqlite3's .recover, or move it away",
                ) from None

    @contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """On disk, also after a power cut, when it ends; part of the one around it, if there is one."""
        with self._database() as db:
            if db.in_transaction:
                yield db
                return
            with db:
                db.execute("BEGIN IMMEDIATE")
                yield db

    def close(self) -> None:
        with self._lock:
            self.db.close()

    def _rows(self, sql: str, *values: Any) -> list[sqlite3.Row]:
        with self._database() as db:
            return db.execute(sql, values).fetchall()

    # Replies

    def get(self, key: str) -> StoredReply | None:
        rows = self._rows("SELECT data FROM replies WHERE key = ?", key)
        try:
            return decode(key, rows[0]["data"]) if rows else None
        except (ValueError, KeyError, TypeError):
            self.damaged.append(f"damaged reply {key[:12]} in {self.path}: counts as never asked")
            return None

    def put(self, key: str, reply: StoredReply) -> None:
        with self.transaction() as db:
            db.execute(
                "INSERT OR REPLACE INTO replies VALUES (?, ?, ?)",
                (key, reply.created_at, encode(key, reply)),
            )

    def keys(self) -> list[str]:
        return [key for (key,) in self._rows("SELECT key FROM replies ORDER BY key")]

    def replies(self) -> Iterator[tuple[str, StoredReply]]:
        yield from ((key, reply) for key in self.keys() if (reply := self.get(key)) is not None)

    def prune(self, keep: Collection[str] | None = None, older_than: datetime | None = None) -> int:
        """Delete replies not in `keep`, or made before `older_than` (with both: and); how many."""
        if keep is None and older_than is None:
            raise ValueError("prune needs to know which replies to keep")
        with self.transaction() as db:
            pruned_keys = [
                (key,)
                for key, made_at in db.execute("SELECT key, created_at FROM replies")
                if (keep is None or key not in keep)
                and (older_than is None or datetime.fromisoformat(made_at) < older_than)
            ]
            db.executemany("DELETE FROM replies WHERE key = ?", pruned_keys)
        return len(pruned_keys)

    # Costs

    def reserve(
        self,
        call: Mapping[str, Any],
        estimate_usd: float,
        max_calls: int | None = None,
        max_cost: float | None = None,
    ) -> int:
        """Count a request before it is sent; the id that settles it. Raises VlmError: no room in the budget.

        `call`: its columns of `attempts`, from call_key to num_images. A process that is killed
        leaves its reservations counted, as the server may have worked for them: a budget is kept
        rather than used up.

        Example: of a budget of 1 USD, 0.70 are spent and a call of up to 0.20 is under way. One
        more call of up to 0.20 is refused, for 0.70 + 0.20 + 0.20 > 1. Once the other is settled at
        0.05, there is room for it.
        """
        remedy = "and build again, answered questions are not asked again"
        row = {**call, "cost_usd": estimate_usd, "status": UNSETTLED}
        with self.transaction() as db:
            calls, usd = self.spent(call["build_id"])
            if max_calls is not None and calls + 1 > max_calls:
                used_up = f"the budget of {max_calls} calls of this build is used up"
                raise VlmError("budget", f"{used_up}: raise max_calls {remedy}")
            if max_cost is not None and usd + estimate_usd > max_cost:
                no_room = (
                    f"the budget of {max_cost:g} USD of this build has no room for another call"
                )
                numbers = f"spent or under way: {usd:.4f}, the call: up to {estimate_usd:.4f}"
                raise VlmError("budget", f"{no_room} ({numbers}): raise max_cost_usd {remedy}")
            self._add(call["build_id"], 1, estimate_usd)
            names = ", ".join(row)
            values = ", ".join(f":{name}" for name in row)
            return (
                db.execute(f"INSERT INTO attempts ({names}) VALUES ({values})", row).lastrowid or 0
            )

    def settle(self, reservation: int, **truth: Any) -> None:
        """Put what a request cost in place of its estimate; `truth`: columns from prompt_tokens to error."""
        with self.transaction() as db:
            attempt = db.execute(
                "SELECT build_id, cost_usd FROM attempts WHERE id = ?", (reservation,)
            ).fetchone()
            names = ", ".join(f"{name} = ?" for name in truth)
            db.execute(f"UPDATE attempts SET {names} WHERE id = ?", (*truth.values(), reservation))
            self._add(attempt["build_id"], 0, truth["cost_usd"] - attempt["cost_usd"])

    def release(self, reservation: int) -> None:
        """Uncount a request that no server has worked for."""
        with self.transaction() as db:
            deleted = db.execute(
                "DELETE FROM attempts WHERE id = ? RETURNING build_id, cost_usd", (reservation,)
            )
            build_id, estimate_usd = deleted.fetchone()
            self._add(build_id, -1, -estimate_usd)

    def spent(self, build_id: str) -> tuple[int, float]:
        """Requests sent, with retries, and their cost in USD; what is under way counts as estimated."""
        sql = "SELECT calls, cost_usd FROM spent WHERE build_id = ?"
        return next(map(tuple, self._rows(sql, build_id)), (0, 0.0))

    def last_statuses(self, build_id: str, among: Sequence[str], count: int) -> list[str]:
        """The statuses of the last requests of a build, the newest first; those that are `among` some."""
        # By the rows' order, not by the index: the newest rows are at the end
        query = f"""SELECT status FROM attempts NOT INDEXED WHERE build_id = ?
            AND status IN ({", ".join("?" * len(among))}) ORDER BY id DESC LIMIT ?"""
        return [status for (status,) in self._rows(query, build_id, *among, count)]

    def has_answer(self, build_id: str) -> bool:
        """Did a build get a reply that could be used?"""
        sql = "SELECT 1 FROM attempts WHERE build_id = ? AND status = 'ok' LIMIT 1"
        return bool(self._rows(sql, build_id))

    def bill(self, build_id: str) -> str:
        """What a build has paid for, in words."""
        query = """SELECT count(*), sum(prompt_tokens), sum(completion_tokens), sum(cost_usd) FROM attempts
            WHERE build_id = ? AND status != ?"""
        [(requests, prompt, completion, usd)] = self._rows(query, build_id, UNSETTLED)
        return f"{requests} requests with {prompt or 0} + {completion or 0} tokens, {usd or 0.0:.2f} USD, were paid for"

    def _add(self, build_id: str, calls: int, usd: float) -> None:
        self.db.execute(
            "INSERT INTO spent VALUES (?, ?, ?) ON CONFLICT (build_id) DO UPDATE "
            "SET calls = calls + excluded.calls, cost_usd = cost_usd + excluded.cost_usd",
            (build_id, calls, usd),
        )

    def calls(self, build_id: str, dataset: str | None = None) -> list[dict[str, Any]]:
        """Rows of the lake's table vlm_calls of a build, one per call, in order of their last sending.

        Tokens, latency and cost are summed over the attempts; status and error are the last one's.
        """
        # SQLite takes the bare columns from the row that max() chose
        query = """
            SELECT max(id) AS id, call_key, build_id, dataset, episode_index, label_run, stage, model,
                prompt_version, num_images, sum(prompt_tokens) AS prompt_tokens,
                sum(completion_tokens) AS completion_tokens, sum(latency_s) AS latency_s, sum(cost_usd) AS cost_usd,
                status, error
            FROM attempts WHERE build_id = ? AND dataset = ifnull(?, dataset) GROUP BY call_key ORDER BY id
        """
        rows = map(dict, self._rows(query, build_id, dataset))
        return [{name: value for name, value in row.items() if name != "id"} for row in rows]


def encode(key: str, reply: StoredReply) -> bytes:
    """One line with the sha256 of the rest, then JSON, compressed."""
    body = canonical({"key": key, **asdict(reply)}).encode()
    return zlib.compress(hashlib.sha256(body).hexdigest().encode() + b"\n" + body)


def decode(key: str, data: bytes) -> StoredReply:
    """Raises ValueError, KeyError or TypeError on anything that `encode` did not write for this key."""
    try:
        digest, _, body = zlib.decompress(data).partition(b"\n")
    except zlib.error as e:
        raise ValueError(str(e)) from None
    # The hash comes first: nothing of a damaged body is parsed
    if digest.decode() != hashlib.sha256(body).hexdigest():
        raise ValueError("not the bytes that were written")
    stored = json.loads(body)
    if stored["key"] != key:
        raise ValueError("the reply to another call")
    # A field with a default may be missing: replies of older versions do not have it
    values: dict[str, Any] = {
        f.name: stored[f.name] for f in fields(StoredReply) if f.name in stored
    }
    values |= {name: tuple(values.get(name, ())) for name in ("images", "content")}
    return StoredReply(**values)
