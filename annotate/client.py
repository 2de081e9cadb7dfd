"""The client of OpenAI-compatible servers: every question asked once, paid within the budget, answered to the schema."""

from types import TracebackType
from typing import Self

from annotate.calls import Image, Reply, Request, VlmError, call_key
from annotate.ledger import Ledger
from annotate.responses import ResponseStore, StoredReply
from annotate.vlm_config import VlmConfig

__all__ = ["Client", "Image", "Ledger", "Reply", "Request", "ResponseStore", "StoredReply", "VlmError", "call_key"]


class Client:
    """Asks for one partition: an async context manager, for one event loop."""

    def __init__(
        self,
        config: VlmConfig,
        store: ResponseStore,
        ledger: Ledger,
        *,
        build_id: str,
        dataset: str,
        label_run: str,
        prompt_version: str,
    ):
        self.config = config
        self.keys: set[str] = set()  # of all replies given, for ResponseStore.pack
        self.hits = 0  # replies given without a request

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        return None

    async def check(self) -> None:
        """Every endpoint answers and serves the model; done before the first request if not called. Raises VlmError."""
        raise NotImplementedError

    async def ask(self, request: Request, episode_index: int) -> Reply:
        """The stored reply, else the server's, stored before it is returned. Raises VlmError."""
        raise NotImplementedError
