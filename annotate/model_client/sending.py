"""One question put to the servers until it is answered, refused or hopeless; each request paid for, each reply kept."""

import asyncio
import random
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from annotate.model_client.calls import Reply, Request, VlmError
from annotate.model_client.endpoints import BusyError, Endpoint, SendError, choose
from annotate.model_client.http_codec import BadReplyError, Completion, Encoder, completion
from annotate.model_client.ledger import Call, Ledger, cost_usd
from annotate.model_client.responses import ResponseStore, StoredReply
from annotate.model_client.served_models import Served, agreed
from annotate.model_client.tokens import TokenMeter
from annotate.vlm.config import VlmConfig

FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.5, 8.0  # between tries, before jitter
MAX_DOUBLINGS = 10  # the pause is at its longest long before; keeps the power small
BUSY_PATIENCE_S = 600.0  # how long one question is put off by a server that has too much to do
RETRY_TEMPERATURE = 0.3  # at least: at 0 a model gives the same bad reply again
FEWEST_CHARS_PER_TOKEN = 2.0  # of texts, for what a call may cost at the most; the truth is settled later
PAUSES_SKIPPED = 4  # of the doubling ones, where a busy server does not say for how long
CHECKS = 3  # tries to reach an endpoint before the first request


@dataclass(frozen=True)
class Sent:
    """One request after its answer or failure. `busy_s`: the server's time that it took (see Endpoint.end)."""

    reservation: int
    estimate_usd: float
    answer: bytes | Exception
    latency_s: float
    busy_s: float


@dataclass
class Tries:
    """What one question has met so far."""

    began: float  # of time.monotonic()
    bad_replies: int = 0
    failures: int = 0  # weighted: see SendError
    put_off_s: float = 0.0  # by servers that have too much to do


class Sender:
    """Puts questions to the servers: at most max_concurrency requests are under way at once."""

    def __init__(self, config: VlmConfig, endpoints: Sequence[Endpoint], store: ResponseStore, ledger: Ledger):
        self.config = config
        self.endpoints = endpoints
        self.served: dict[str, Served] = {}  # by model name, once checked
        self._store, self._ledger = store, ledger
        self._encoder = Encoder()
        self._slots = asyncio.Semaphore(config.max_concurrency)
        # A quarter more calls than slots are open, so that no slot waits while a body is made or a reply stored. No
        # more: a kill wastes few answers
        self._open = asyncio.Semaphore(config.max_concurrency + max(1, config.max_concurrency // 4))
        self._writers = ThreadPoolExecutor(max_workers=config.max_concurrency)
        self._storing: set[asyncio.Future[None]] = set()

    async def check(self) -> None:
        """Fill `served` with what every endpoint serves. Raises VlmError."""
        lists = await asyncio.gather(*(models(endpoint) for endpoint in self.endpoints))
        names = {self.config.model, self.config.strong_model or self.config.model}
        self.served = {name: agreed(name, self.config, self.config.endpoints, lists) for name in sorted(names)}

    async def close(self) -> None:
        """Replies that are there are stored."""
        await asyncio.gather(*self._storing, return_exceptions=True)
        self._writers.shutdown()
        for endpoint in self.endpoints:
            await endpoint.close()

    async def send(self, call: Call, request: Request) -> Reply:
        """Try until there is a valid reply or no hope of one. Bad replies and failures are counted apart."""
        tries = Tries(began=time.monotonic())
        while True:
            try:
                return await self._try(call, request, tries.bad_replies)
            except BadReplyError as e:
                pause_s = self._after_bad_reply(tries, e)
            except SendError as e:
                pause_s = self._after_failure(tries, e)
            except BusyError as e:
                pause_s = self._after_busy(tries, e)
            await asyncio.sleep(pause_s)

    def _after_bad_reply(self, tries: Tries, error: BadReplyError) -> float:
        """Seconds before the next try. Raises VlmError after max_attempts bad replies."""
        tries.bad_replies += 1
        if tries.bad_replies >= self.config.max_attempts:
            raise VlmError(
                "bad_reply", f"no valid reply in {tries.bad_replies} attempts; the last time {error}"
            ) from None
        return pause(tries.bad_replies)

    def _after_failure(self, tries: Tries, error: SendError) -> float:
        """Seconds before the next try. Raises VlmError when no server answers, or none answers this request."""
        tries.failures += error.weight
        patience = 2 * self.config.max_attempts
        # Either every server fails, or this one request does while others are answered: these end differently
        is_out_of_patience = tries.failures >= patience
        every_server_fails = all(endpoint.failures >= patience for endpoint in self.endpoints)
        none_answered_since = all(endpoint.succeeded_at < tries.began for endpoint in self.endpoints)
        if every_server_fails or (is_out_of_patience and none_answered_since):
            raise VlmError(
                "server_gone",
                f"no server answers any more ({error}); what was answered is stored: start the server and build again",
            ) from None
        if is_out_of_patience:
            raise VlmError("refused", f"the server fails on this request, not on others: {error}") from None
        return pause(tries.failures)

    def _after_busy(self, tries: Tries, error: BusyError) -> float:
        """Seconds before the next try. Raises VlmError when the servers have put the question off for too long."""
        # What the server asks for is waited for in choose(); one that does not say for how long gets a longer pause
        pause_s = pause(1 if error.retry_after_s is not None else PAUSES_SKIPPED)
        tries.put_off_s += max(pause_s, error.retry_after_s or 0.0)
        if tries.put_off_s > BUSY_PATIENCE_S:
            raise too_busy(tries.put_off_s) from None
        return pause_s

    async def _try(self, call: Call, request: Request, attempt: int) -> Reply:
        """One request, settled in the ledger. Raises BadReplyError, SendError, BusyError and VlmError.

        `attempt` counts bad replies: after a failure the same bytes are sent again. A seed goes with temperature 0
        alone: vLLM 0.32 on CPU dies of one with a temperature above 0.
        """
        temperature = max(request.temperature, RETRY_TEMPERATURE) if attempt else request.temperature
        sampling: dict[str, Any] = {"max_tokens": request.max_tokens, "temperature": temperature}
        if not temperature:
            sampling["seed"] = request.seed
        # The body is made before a slot is free, and the reply stored after it is given back
        async with self._open:
            body = self._encoder.body(request, call.model, sampling)
            async with self._slots:
                sent = await self._request(call, body, self._estimate_usd(request))
            return await self._use(call, request, sent, {**sampling, "attempt": attempt})

    async def _use(self, call: Call, request: Request, sent: Sent, sampling: dict[str, Any]) -> Reply:
        """The reply that was sent, settled and stored. Raises what `_try` raises, settled as well."""
        if isinstance(sent.answer, Exception):
            self._settle_failure(sent, sent.answer)
            raise sent.answer
        served = self.served.get(call.model)
        names = {call.model, served.root} if served and served.root else {call.model}
        try:
            answer = completion(sent.answer, request, names)
        except BadReplyError as e:
            self._settle(sent, "bad_reply", e.usage, str(e))
            raise
        except VlmError as e:
            self._settle(sent, e.reason, None, str(e))
            raise
        # All that traces a label back to the reply, and what was asked as it was sent
        prompt_tokens, completion_tokens = answer.usage or (0, 0)
        stored = StoredReply(
            text=answer.text,
            value=answer.value,
            prompt_tokens=prompt_tokens,
            completion_tokens=completion_tokens,
            latency_s=sent.latency_s,
            model=answer.model,
            model_root=served.root if served else None,
            stage=request.stage,
            prompt_version=call.prompt_version,
            images=tuple(image.sha256 for image in request.images),
            params=sampling,
            created_at=datetime.now(UTC).isoformat(),
            system=request.system,
            content=tuple(request.parts),
        )
        await self._store_reply(call.call_key, stored, sent, answer)
        return Reply(call.call_key, answer.value, prompt_tokens, completion_tokens, sent.latency_s, cached=False)

    async def _store_reply(self, key: str, stored: StoredReply, sent: Sent, answer: Completion) -> None:
        """Write and settle in a thread. Whoever is cancelled meanwhile, an answer is kept."""
        loop = asyncio.get_running_loop()
        storing = loop.run_in_executor(self._writers, self._store_and_settle, key, stored, sent, answer)
        self._storing.add(storing)
        storing.add_done_callback(self._storing.discard)
        await asyncio.shield(storing)

    def _store_and_settle(self, key: str, stored: StoredReply, sent: Sent, answer: Completion) -> None:
        self._store.put(key, stored)
        self._settle(sent, "ok", answer.usage, None)

    async def _request(self, call: Call, body: bytes, estimate_usd: float) -> Sent:
        # Reserved before it is sent: a process that is killed meanwhile has counted it
        endpoint = await self._open_endpoint()
        reservation = self._ledger.reserve(call, estimate_usd, self.config.max_calls, self.config.max_cost_usd)
        started, begun = time.monotonic(), endpoint.begin()
        answer: bytes | Exception
        try:
            answer = await endpoint.chat(body, self.config.timeout_s)
        except (SendError, BusyError, VlmError) as e:
            answer = e
        finally:
            busy_s = endpoint.end(begun)
        return Sent(reservation, estimate_usd, answer, time.monotonic() - started, busy_s)

    async def _open_endpoint(self) -> Endpoint:
        while True:
            endpoint, wait_s = choose(self.endpoints)
            if not wait_s:
                return endpoint
            if wait_s > BUSY_PATIENCE_S:
                raise too_busy(wait_s)
            await asyncio.sleep(wait_s + random.uniform(0, 0.05))

    def _settle_failure(self, sent: Sent, failure: Exception) -> None:
        """A request that no server has worked for costs nothing; any other costs the server's time."""
        if isinstance(failure, BusyError) or (isinstance(failure, SendError) and not failure.sent):
            self._ledger.release(sent.reservation)
        else:
            status = failure.reason if isinstance(failure, VlmError) else "failed"
            self._settle(sent, status, (0, 0), str(failure))

    def _settle(self, sent: Sent, status: str, usage: tuple[int, int] | None, error: str | None) -> None:
        """A server that tells no tokens is taken to have used what was reserved."""
        prompt_tokens, completion_tokens = usage or (0, 0)
        cost = cost_usd(self.config.price, prompt_tokens, completion_tokens, sent.busy_s)
        self._ledger.settle(
            sent.reservation,
            status=status,
            prompt_tokens=prompt_tokens,
            completion_tokens=completion_tokens,
            latency_s=sent.latency_s,
            cost_usd=sent.estimate_usd if usage is None else cost,
            error=error,
        )

    def _estimate_usd(self, request: Request) -> float:
        """The most that the request may cost: every token of a long tokenization, and the longest reply."""
        price = self.config.price
        is_free = not (
            price.usd_per_million_prompt_tokens or price.usd_per_million_completion_tokens or price.usd_per_gpu_hour
        )
        if is_free:
            return 0.0
        prompt_tokens = TokenMeter(chars_per_token=FEWEST_CHARS_PER_TOKEN).prompt(request)
        busy_s = prompt_tokens / price.prompt_tokens_per_s + request.max_tokens / price.completion_tokens_per_s
        return cost_usd(price, prompt_tokens, request.max_tokens, busy_s)


def pause(failures: int) -> float:
    """Seconds before the next try: doubling, with jitter.

    Example: after one failure 0.25 to 0.5 s, after two 0.5 to 1 s, from the fifth on 4 to 8 s.
    """
    doubled_s = FIRST_PAUSE_S * 2.0 ** min(failures - 1, MAX_DOUBLINGS)
    return min(LONGEST_PAUSE_S, doubled_s) * random.uniform(0.5, 1.0)


def too_busy(seconds: float) -> VlmError:
    return VlmError(
        "refused", f"the server puts us off for {seconds:.0f} s (HTTP 429): lower max_concurrency, or build again later"
    )


async def models(endpoint: Endpoint) -> list[Served]:
    """What an endpoint serves, tried CHECKS times. Raises VlmError."""
    for tries in range(1, CHECKS):
        with suppress(SendError, BusyError):
            return await endpoint.models()
        await asyncio.sleep(pause(tries))
    try:
        return await endpoint.models()
    except (SendError, BusyError) as e:
        raise VlmError("server_gone", f"no server to ask ({e}): is it started, and is the address right?") from None
