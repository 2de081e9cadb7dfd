"""The client of OpenAI-compatible servers: a question is asked once, within the budget, and answered to its schema."""

import asyncio
import os
from dataclasses import replace
from types import TracebackType
from typing import Self

from annotate.model_client.calls import Reply, Request, VlmError, call_key
from annotate.model_client.endpoints import Endpoint
from annotate.model_client.http_codec import schema_problem
from annotate.model_client.ledger import Call, Ledger
from annotate.model_client.responses import ResponseStore
from annotate.model_client.sending import Sender
from annotate.model_client.served_models import Served
from annotate.vlm.config import VlmConfig


class Client:
    """Asks for one partition: an async context manager, for one event loop.

    How each misbehaviour of a server ends is in docs/vlm.md. An error that `is_fatal` ends every later question too,
    and (but for a budget: what is under way is paid for) all that are under way, at once.
    """

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
        self.hits = 0  # replies given without a request
        self._store, self._ledger = store, ledger
        self._identity = {
            "build_id": build_id, "dataset": dataset, "label_run": label_run, "prompt_version": prompt_version
        }  # fmt: skip
        self._checking = asyncio.Lock()
        self._flights: dict[str, asyncio.Task[Reply]] = {}
        self._fatal: VlmError | None = None
        self._is_spent = False  # the budget had no room for a request

    async def __aenter__(self) -> Self:
        name = self.config.api_key_env
        key = os.environ.get(name) if name else None
        if name and not key:
            raise VlmError("refused", f"the environment variable {name} (api_key_env) is not set", is_fatal=True)
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        endpoints = [Endpoint(url, headers, self.config.max_concurrency) for url in self.config.endpoints]
        self._sender = Sender(self.config, endpoints, self._store, self._ledger)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Replies that are there are stored. Requests under way are given up, unless a budget is why we end."""
        flights = list(self._flights.values())
        if not self._is_spent or self._fatal:
            for flight in flights:
                flight.cancel()
        await asyncio.gather(*flights, return_exceptions=True)
        await self._sender.close()

    @property
    def served(self) -> dict[str, Served]:
        """The models by name, as the servers told; empty before the check."""
        return self._sender.served

    async def check(self) -> None:
        """Every endpoint answers and serves the model; done before the first request if not called. Raises VlmError."""
        async with self._checking:
            self._raise_fatal()
            if self.served:
                return
            try:
                await self._sender.check()
            except VlmError as e:
                self._end(VlmError(e.reason, str(e), is_fatal=True))
                self._raise_fatal()

    async def ask(self, request: Request, episode_index: int) -> Reply:
        """The stored reply, else the server's, stored before it is returned. Raises VlmError.

        Asking at once what is being asked already sends nothing, and what an asker that was cancelled asked for is
        still stored when it comes.
        """
        self._raise_fatal()
        # Who asks first starts a flight, and who asks the same meanwhile waits for it
        key = call_key(request, self.config.model, self.config.revision)
        flight = self._flights.get(key)
        is_first = flight is None
        if flight is None:
            flight = self._flights[key] = asyncio.create_task(self._answer(key, request, episode_index))
            flight.add_done_callback(lambda done: self._landed(key, done))
        # Shielded: a flight goes on when its asker is cancelled
        try:
            reply = await asyncio.shield(flight)
        except asyncio.CancelledError:
            # Where a fatal error cancelled the flight, that is told instead of the cancellation
            if flight.cancelled():
                self._raise_fatal()
            raise
        reply = reply if is_first else replace(reply, cached=True)
        self.hits += reply.cached
        return reply

    async def _answer(self, key: str, request: Request, episode_index: int) -> Reply:
        """The stored reply if it fits the schema, else the server's."""
        stored = await asyncio.to_thread(self._store.get, key)
        if stored is not None and schema_problem(stored.value, request.schema) is None:
            tokens = (stored.prompt_tokens, stored.completion_tokens)
            return Reply(key, stored.value, *tokens, stored.latency_s, cached=True)
        # Only here: a build whose replies are all stored needs no server
        if not self.served:
            await self.check()
        # What the ledger counts the request under
        call = Call(
            call_key=key,
            **self._identity,
            episode_index=episode_index,
            stage=request.stage,
            model=request.model or self.config.model,
            num_images=len(request.images),
        )
        try:
            return await self._sender.send(call, request)
        except VlmError as e:
            if e.is_fatal:
                self._end(e)
                raise
            raise VlmError(e.reason, f"{call.dataset}, episode {episode_index}, {request.stage}: {e}") from None

    def _landed(self, key: str, flight: asyncio.Task[Reply]) -> None:
        """Forget a flight that has ended: from now on its reply is in the store, or may be asked for anew."""
        del self._flights[key]
        if not flight.cancelled():
            flight.exception()  # seen, also where all its askers were cancelled

    def _end(self, error: VlmError) -> None:
        """After an error that is fatal nothing more is asked."""
        # What is under way is paid for: only new requests find no room in the budget
        if error.reason == "budget":
            self._is_spent = True
            return
        self._fatal = self._fatal or error
        for flight in self._flights.values():
            if flight is not asyncio.current_task():
                flight.cancel()

    def _raise_fatal(self) -> None:
        if self._fatal:
            raise VlmError(self._fatal.reason, str(self._fatal), is_fatal=True)
