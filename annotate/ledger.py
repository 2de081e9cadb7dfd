"""What calls cost, and how much they may: reserved before a request is sent, settled after its answer."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any


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
    calls: int
    cost_usd: float


class Ledger:
    """One SQLite file, shared by several processes and threads."""

    def __init__(self, path: Path):
        self.path = path

    def spent(self, build_id: str) -> Spent:
        """Reserved and settled."""
        raise NotImplementedError

    def calls(
        self, *, build_id: str | None = None, dataset: str | None = None, episodes: range | None = None
    ) -> list[dict[str, Any]]:
        """Rows of the lake's table vlm_calls, one per (call_key, build_id): attempts are summed."""
        raise NotImplementedError

    def close(self) -> None:
        raise NotImplementedError
