"""What calls cost, and how much they may: reserved before a request is sent, settled after its answer."""

from dataclasses import astuple, dataclass, fields
from pathlib import Path
from typing import Any

from annotate.model_client.calls import VlmError
from annotate.model_client.responses import FILE, Database
from annotate.vlm.config import Price

# One row per request sent; `spent` has the sums, so that a reservation does not add up millions of rows
SCHEMA = """
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


def ledger_path(responses: Path) -> Path:
    """The ledger lies in the file of the replies that it paid for."""
    return responses / FILE


@dataclass(frozen=True)
class Call:
    """Who asks for what, as in the lake's table vlm_calls."""

    call_key: str
    build_id: str
    dataset: str
    episode_index: int
    label_run: str
    stage: str
    model: str
    prompt_version: str
    num_images: int


@dataclass(frozen=True)
class Spent:
    """Requests sent, each retry being one, and their cost; what is under way counts as it was estimated."""

    calls: int
    cost_usd: float


def cost_usd(price: Price, prompt_tokens: int, completion_tokens: int, busy_s: float) -> float:
    """`busy_s`: the endpoint's time that the call took, shared out among the calls under way together.

    Example: half a million prompt tokens at 2 USD a million and 90 s of 4 GPUs at 3 USD an hour are 1 + 0.3 USD.
    """
    prompt_usd = prompt_tokens * price.usd_per_million_prompt_tokens / 1e6
    completion_usd = completion_tokens * price.usd_per_million_completion_tokens / 1e6
    return prompt_usd + completion_usd + busy_s / 3600 * price.gpus * price.usd_per_gpu_hour


def _check_budget(spent: Spent, estimate_usd: float, max_calls: int | None, max_cost_usd: float | None) -> None:
    """Raises VlmError when the budget has no room for one more call of that cost."""
    if max_calls is not None and spent.calls + 1 > max_calls:
        raise VlmError(
            "budget",
            f"the budget of {max_calls} calls of this build is used up: raise max_calls and build again, "
            "answered questions are not asked again",
        )
    if max_cost_usd is not None and spent.cost_usd + estimate_usd > max_cost_usd:
        raise VlmError(
            "budget",
            f"the budget of {max_cost_usd:g} USD of this build has no room for another call "
            f"(spent or under way: {spent.cost_usd:.4f}, the call: up to {estimate_usd:.4f}): "
            "raise max_cost_usd and build again, answered questions are not asked again",
        )


class Ledger(Database):
    """The costs of calls, in the file of the replies that they paid for.

    A process that is killed leaves its reservations counted, as the server may have worked for them: a budget is
    kept rather than used up. Raises VlmError for a file that is no ledger.
    """

    def __init__(self, path: Path):
        super().__init__(path, SCHEMA)
        # The ledger of an earlier version was a file of its own
        former = path.parent / "ledger.sqlite"
        if former.exists() and former != path:
            self.db.execute("ATTACH ? AS former", (str(former),))
            with self.transaction() as db:
                if not db.execute("SELECT 1 FROM attempts").fetchone():
                    db.execute("INSERT INTO attempts SELECT * FROM former.attempts")
                    db.execute("INSERT INTO spent SELECT * FROM former.spent")
            self.db.execute("DETACH former")
            for file in path.parent.glob("ledger.sqlite*"):
                file.unlink(missing_ok=True)

    def reserve(
        self, call: Call, estimate_usd: float, max_calls: int | None = None, max_cost_usd: float | None = None
    ) -> int:
        """Count a request before it is sent; the id that settles it. Raises VlmError when the budget has no room.

        Example: of a budget of 1 USD, 0.70 are spent and a call of up to 0.20 is under way. One more call of up to 0.20
        is refused, for 0.70 + 0.20 + 0.20 > 1. Once the other is settled at 0.05, there is room for it.
        """
        with self.transaction() as db:
            _check_budget(self._spent(call.build_id), estimate_usd, max_calls, max_cost_usd)
            names = ", ".join(f.name for f in fields(Call))
            row = db.execute(
                f"INSERT INTO attempts ({names}, cost_usd, status) VALUES ({'?, ' * len(fields(Call))}?, ?)",
                (*astuple(call), estimate_usd, UNSETTLED),
            )
            self._add(call.build_id, 1, estimate_usd)
            assert row.lastrowid is not None
            return row.lastrowid

    def settle(
        self,
        reservation: int,
        *,
        status: str,
        prompt_tokens: int = 0,
        completion_tokens: int = 0,
        latency_s: float = 0.0,
        cost_usd: float = 0.0,
        error: str | None = None,
    ) -> None:
        """Put what a request truly cost in place of its estimate."""
        with self.transaction() as db:
            build_id, estimate = db.execute(
                "SELECT build_id, cost_usd FROM attempts WHERE id = ?", (reservation,)
            ).fetchone()
            db.execute(
                "UPDATE attempts SET status = ?, prompt_tokens = ?, completion_tokens = ?, latency_s = ?, "
                "cost_usd = ?, error = ? WHERE id = ?",
                (status, prompt_tokens, completion_tokens, latency_s, cost_usd, error, reservation),
            )
            self._add(build_id, 0, cost_usd - estimate)

    def release(self, reservation: int) -> None:
        """Uncount a request that no server has worked for."""
        with self.transaction() as db:
            build_id, estimate = db.execute(
                "DELETE FROM attempts WHERE id = ? RETURNING build_id, cost_usd", (reservation,)
            ).fetchone()
            self._add(build_id, -1, -estimate)

    def spent(self, build_id: str) -> Spent:
        with self.lock:
            return self._spent(build_id)

    def calls(
        self, *, build_id: str | None = None, dataset: str | None = None, episodes: range | None = None
    ) -> list[dict[str, Any]]:
        """Rows of the lake's table vlm_calls, one per (call_key, build_id), in order of their last sending.

        Tokens, latency and cost are summed over the attempts; status and error are the last one's.
        """
        conditions: list[str] = ["TRUE"]
        values: list[str | int] = []
        if build_id is not None:
            conditions.append("build_id = ?")
            values.append(build_id)
        if dataset is not None:
            conditions.append("dataset = ?")
            values.append(dataset)
        if episodes is not None:
            conditions.append("episode_index >= ? AND episode_index < ?")
            values += [episodes.start, episodes.stop]
        # SQLite takes the bare columns from the row that max() chose
        query = f"""
            SELECT max(id) AS id, call_key, build_id, dataset, episode_index, label_run, stage, model,
                prompt_version, num_images, sum(prompt_tokens) AS prompt_tokens,
                sum(completion_tokens) AS completion_tokens, sum(latency_s) AS latency_s, sum(cost_usd) AS cost_usd,
                status, error
            FROM attempts WHERE {" AND ".join(conditions)} GROUP BY call_key, build_id ORDER BY id
        """
        with self.lock:
            rows = self.db.execute(query, values).fetchall()
        return [{k: v for k, v in dict(row).items() if k != "id"} for row in rows]

    def _spent(self, build_id: str) -> Spent:
        row = self.db.execute("SELECT calls, cost_usd FROM spent WHERE build_id = ?", (build_id,)).fetchone()
        return Spent(*row) if row else Spent(0, 0.0)

    def _add(self, build_id: str, calls: int, cost: float) -> None:
        self.db.execute(
            "INSERT INTO spent VALUES (?, ?, ?) ON CONFLICT (build_id) DO UPDATE "
            "SET calls = calls + excluded.calls, cost_usd = cost_usd + excluded.cost_usd",
            (build_id, calls, cost),
        )
