"""The client of OpenAI-compatible servers: a question is asked once and within the budget."""

import asyncio
import os
import random
import time
from collections.abc import AsyncIterator, Coroutine, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any, Self, cast

from annotate.config import Price, VlmConfig
from annotate.model_client import endpoints
from annotate.model_client.calls import Reason, Reply, Request, VlmError
from annotate.model_client.profiles import ServerProfile, profile_of
from annotate.model_client.reading import problem_of
from annotate.model_client.responses import ResponseStore, StoredReply
from annotate.model_client.tokens import FEWEST_CHARS_PER_TOKEN, prompt_tokens

FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.5, 8.0  # between tries, before jitter
MAX_DOUBLINGS = 10  # the pause is at its longest long before; keeps the power small
BUSY_PATIENCE_S = 600.0  # how long one question is put off by a server that has too much to do
RETRY_TEMPERATURE = 0.3  # at least: at 0 a model gives the same bad reply again
PAUSES_SKIPPED = 4  # of the doubling ones, where a busy server does not say for how long
CHECKS = 3  # tries to reach an endpoint before the first request
MAX_BAD_REPLIES = 2  # to one question: the second request says what was wrong with the first reply
# So many requests in a row that end alike without a usable reply stop a build, and so many of any kind before its first
# usable reply; until there is one, so few are under way at once
BAD_IN_A_ROW = 8
BAD_AT_FIRST = 12
FIRST_AT_ONCE = 4
UNUSABLE = (*endpoints.BAD_REPLIES, "wrong_request")
THINKING_TOKENS = 4096  # more room for each reply, once one was cut off
REMEDIES = {
    "bad_reply": "see whether the server honours response_format, or try another model",
    "cut": "the model writes or thinks longer than it is asked to: switch its thinking off at the server",
    "refusal": "see whether the task's text is what it declines, or try another model",
    "filtered": "see what the server's filter objects to, or try another server",
    "wrong_request": "the server's words say what it does not take",
}


class Client:
    """Asks for one partition: an async context manager, for one event loop.

    How each misbehaviour of a server ends is in docs/vlm.md. An error that `is_fatal` ends every
    later question too, and (but for a budget: what is under way is paid for) all that are under
    way, at once.
    """

    def __init__(
        self,
        config: VlmConfig,
        store: ResponseStore,
        *,
        build_id: str,
        dataset: str,
        label_run: str,
        prompt_version: str,
    ):
        self.config = config
        self.store = store
        self.hits = 0  # replies given without a request
        # The models by name, as the servers told; empty before the check
        self.served: dict[str, endpoints.Served] = {}
        self._caller = {
            "build_id": build_id, "dataset": dataset, "label_run": label_run, "prompt_version": prompt_version
        }  # fmt: skip
        self._checking = asyncio.Lock()
        self._slots = asyncio.Semaphore(config.max_concurrency)
        self._flights: dict[str, asyncio.Task[Reply]] = {}
        self._fatal: VlmError | None = None
        self._is_spent = False  # the budget had no room for a request
        self._has_answer = False  # a reply of this build could be used
        self._first_slots = asyncio.Semaphore(min(FIRST_AT_ONCE, config.max_concurrency))
        # What the servers take, as far as is known
        self.profile = profile_of(config.endpoints[0], config.server)
        self._room = 0  # tokens that each reply gets beyond its own length: the model thinks

    async def __aenter__(self) -> Self:
        name = self.config.api_key_env
        key = os.environ.get(name) if name else None
        if name and not key:
            raise VlmError(
                "refused",
                f"the environment variable {name} (api_key_env) is not set",
                is_fatal=True,
            )
        self.endpoints = [
            endpoints.Endpoint(url, key, self.config.max_concurrency)
            for url in self.config.endpoints
        ]
        return self

    async def __aexit__(self, *_: object) -> None:
        """Requests under way are given up, unless a budget is why we end."""
        flights = list(self._flights.values())
        if not self._is_spent or self._fatal:
            for flight in flights:
                flight.cancel()
        await asyncio.gather(*flights, return_exceptions=True)
        for endpoint in self.endpoints:
            await endpoint.close()

    async def side_by_side(self, tasks: Iterable[Coroutine[Any, Any, object]]) -> None:
        """Tasks that ask this client, all at once: what one raises stops the others. Raises VlmError."""
        async with self:
            try:
                async with asyncio.TaskGroup() as group:
                    for task in tasks:
                        group.create_task(task)
            except BaseExceptionGroup as group:
                raise _first_error(group) from group

    async def check(self) -> None:
        """Every endpoint answers and serves the models; done before the first request. Raises VlmError."""
        async with self._checking:
            self._raise_fatal()
            if self.served:
                return
            try:
                lists = await asyncio.gather(*map(_served_models, self.endpoints))
                names = sorted({*self.config.models})
                self.served = {name: self._agreed_model(name, lists) for name in names}
            except VlmError as e:
                self._end(VlmError(e.reason, str(e), is_fatal=True))
                self._raise_fatal()

    def _agreed_model(self, name: str, lists: list[list[endpoints.Served]]) -> endpoints.Served:
        """The model as all endpoints serve it. Raises VlmError when one does not, or serves another."""
        cards = {
            url: self._served_model(name, url, served_models)
            for url, served_models in zip(self.config.endpoints, lists, strict=True)
        }
        if len({card.identity for card in cards.values()}) > 1:
            roots = ", ".join(f"{card.root} at {url}" for url, card in cards.items())
            raise VlmError(
                "wrong_model", f"the endpoints serve different models as {name}: {roots}"
            )
        sizes = [card.context_tokens for card in cards.values() if card.context_tokens]
        return replace(next(iter(cards.values())), context_tokens=min(sizes, default=None))

    def _served_model(
        self, name: str, url: str, listed: list[endpoints.Served]
    ) -> endpoints.Served:
        card = next(
            (c for c in listed if c.name.removeprefix("models/") == name.removeprefix("models/")),
            None,
        )
        if card is None:
            names = ", ".join(c.name for c in listed[:5]) or "nothing"
            raise VlmError(
                "wrong_model", f"{url} serves {names}, not {name}: serve it, or configure that one"
            )
        # The configured revision is that of the configured model, not of the strong one
        expected = self.config.revision if name == self.config.model else None
        if expected and card.revision and card.revision != expected:
            raise VlmError(
                "wrong_model",
                f"{url} serves {name} in revision {card.revision}, configured: {expected}",
            )
        return card

    async def ask(self, request: Request, episode_index: int) -> Reply:
        """The stored reply, else the server's, stored before it is returned. Raises VlmError.

        Asking at once what is being asked already sends nothing, and what an asker that was
        cancelled asked for is still stored when it comes.
        """
        key = request.key(self.config.model, self.config.revision)
        # What was answered once is, also where nothing more can be asked
        stored = self.store.get(key)
        if stored is not None and problem_of(stored.value, request.schema) is None:
            self.hits += 1
            tokens = (stored.prompt_tokens, stored.completion_tokens)
            return Reply(key, stored.value, *tokens, stored.latency_s, cached=True)
        self._raise_fatal()
        # Who asks first starts a flight, and who asks the same meanwhile waits for it
        flight = self._flights.get(key)
        is_first = flight is None
        if flight is None:
            flight = self._flights[key] = asyncio.create_task(
                self._new_reply(key, request, episode_index)
            )
            flight.add_done_callback(lambda done: self._forget_flight(key, done))
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

    def _forget_flight(self, key: str, flight: asyncio.Task[Reply]) -> None:
        """Forget a flight that has ended: its reply is in the store, or may be asked for anew."""
        del self._flights[key]
        if not flight.cancelled():
            flight.exception()  # seen, also where all its askers were cancelled

    async def _new_reply(self, key: str, request: Request, episode_index: int) -> Reply:
        """The server's reply."""
        # Only here: a build whose replies are all stored needs no server
        if not self.served:
            await self.check()
            self._resume_build()
        # What the ledger counts the request under
        call = self._caller | {
            "call_key": key,
            "episode_index": episode_index,
            "stage": request.stage,
            "model": request.model or self.config.model,
            "num_images": len(request.images),
        }
        try:
            return await self._retried_reply(call, request)
        except VlmError as e:
            if e.is_fatal:
                self._end(e)
                raise
            location = f"{call['dataset']}, episode {episode_index}, {request.stage}"
            raise VlmError(e.reason, f"{location}: {e}", is_too_long=e.is_too_long) from None

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

    async def _retried_reply(self, call: dict[str, Any], request: Request) -> Reply:
        """Try until there is a valid reply or no hope. Bad replies and failures are counted apart."""
        started_s = time.monotonic()
        failures = 0
        put_off_s = 0.0
        problems: list[str] = []  # of the bad replies so far
        while True:
            try:
                return await self._tried_reply(call, request, problems)
            except endpoints.TryError as e:
                error = e
            if error.kind == "adapted":
                continue
            if error.kind in endpoints.BAD_REPLIES:
                problems.append(str(error))
                if len(problems) >= min(MAX_BAD_REPLIES, self.config.max_attempts):
                    message = f"no usable reply in {len(problems)} attempts; the last time {error}"
                    raise VlmError(cast(Reason, error.kind), message)
                pause_s = _pause_s(len(problems))
            elif error.kind == "busy":
                # What the server asks for is waited for in _open_endpoint
                pause_s = _pause_s(1 if error.after_s is not None else PAUSES_SKIPPED)
                put_off_s += max(pause_s, error.after_s or 0.0)
                if put_off_s > BUSY_PATIENCE_S:
                    raise _too_busy_error(put_off_s)
            else:
                failures += error.weight
                self._check_hope(failures, started_s, error)
                pause_s = _pause_s(failures)
            await asyncio.sleep(pause_s)

    def _is_adapted(self, sent: ServerProfile, refusal: str) -> bool:
        """May the server take the request by the present profile? A refusal changes it once."""
        if self.profile == sent:
            self.profile = sent.without(refusal) or sent
        return self.profile != sent

    def _after_refusal(
        self, error: VlmError, request: Request, profile: ServerProfile, served: endpoints.Served
    ) -> Exception:
        """What the refusal of a profile and limits is: another try, too long, or for good."""
        name = request.model or self.config.model
        # Without a schema a question is sent as it is
        learnt = self._served(name).with_limit_of(str(error)) if request.schema else None
        if learnt:
            self.served[name] = learnt
        if learnt == served:
            words = f"{error}; {endpoints.MORE_ROOM}"
            return VlmError("wrong_request", words, is_too_long=True)
        if learnt or self._is_adapted(profile, str(error)):
            return endpoints.TryError("adapted", str(error))
        return error

    def _served(self, name: str) -> endpoints.Served:
        return self.served.get(name) or endpoints.Served(name, None, None)

    def _check_hope(self, failures: int, started_s: float, error: endpoints.TryError) -> None:
        """Raises VlmError when no server answers, or none answers this one request."""
        patience = 2 * self.config.max_attempts
        every_server_fails = all(endpoint.failures >= patience for endpoint in self.endpoints)
        none_answered_since = all(endpoint.succeeded_at < started_s for endpoint in self.endpoints)
        if every_server_fails or (failures >= patience and none_answered_since):
            remedy = "what was answered is stored: start the server and build again"
            raise VlmError("server_gone", f"no server answers any more ({error}); {remedy}")
        if failures >= patience:
            raise VlmError("refused", f"the server fails on this request, not on others: {error}")

    def _resume_build(self) -> None:
        """What other clients of the build have met. Raises VlmError where replies cannot be used."""
        build_id = self._caller["build_id"]
        self._has_answer = self.store.has_answer(build_id)
        self._room = THINKING_TOKENS if self.store.last_statuses(build_id, ("cut",), 1) else 0
        try:
            self._check_replies()
        except VlmError as e:
            self._end(e)
            raise

    def _check_replies(self) -> None:
        """Raises VlmError where a build's requests end without usable replies, one after the other."""
        build_id = self._caller["build_id"]
        last = self.store.last_statuses(build_id, ("ok", *UNUSABLE), BAD_AT_FIRST)
        last_outcomes = last[:BAD_IN_A_ROW]
        if (
            len(last_outcomes) == BAD_IN_A_ROW
            and len(set(last_outcomes)) == 1
            and "ok" not in last_outcomes
        ):
            message = f"the last {BAD_IN_A_ROW} requests all ended as {last_outcomes[0]}"
        elif len(last) == BAD_AT_FIRST and "ok" not in last:
            message = f"none of the last {BAD_AT_FIRST} replies could be used"
        else:
            return
        message = f"{message}: {REMEDIES[last[0]]}, and build again; {self.store.bill(build_id)}"
        raise VlmError(cast(Reason, last[0]), message, is_fatal=True)

    @asynccontextmanager
    async def _first_slot(self, request: Request) -> AsyncIterator[None]:
        """A few requests at once until one of the build's replies could be used."""
        if self._has_answer or request.schema is None:
            yield
            return
        async with self._first_slots:
            if not self._has_answer:
                self._raise_fatal()
                yield
                return
        yield

    async def _tried_reply(
        self, call: dict[str, Any], request: Request, problems: Sequence[str]
    ) -> Reply:
        """One request, settled in the ledger, its reply stored. Raises TryError and VlmError.

        `problems`: of the bad replies so far; after a failure the same bytes are sent again.
        """
        config = self.config
        model = call["model"]
        if problems:
            temperature = max(request.temperature, RETRY_TEMPERATURE)
        else:
            temperature = request.temperature
        endpoints.check_pictures(request)
        async with self._slots, self._first_slot(request):
            served = self._served(model)
            max_tokens = served.most_reply_tokens(
                request, request.max_tokens + self._room * (request.schema is not None)
            )
            profile = self.profile
            fields = profile.fields(request, max_tokens, temperature)
            body = endpoints.body_of(request, model, fields, problems[-1] if problems else "")
            price = config.price_of(model)
            estimate_usd = _most_usd(price, request, max_tokens)
            endpoint = await self._open_endpoint()
            # Reserved before it is sent: a process that is killed meanwhile has counted it
            reservation = self.store.reserve(
                call, estimate_usd, config.max_calls, config.max_cost_usd
            )
            started = time.monotonic()
            start_mark = endpoint.begin()
            # A failure costs the server's time; a server that tells no tokens is taken to have used what was reserved
            answer = None
            completion_fields = None
            error = None
            usage = (0, 0)
            doubt = None
            try:
                answer = await endpoint.chat(body, config.timeout_s)
                usage = None
                reply_body = endpoints.answer_object(answer)
                usage = endpoints.usage_of(reply_body)
                completion_fields = endpoints.completion(
                    reply_body, request, {model, served.root or model}
                )
            except (endpoints.TryError, VlmError) as e:
                error = e
            finally:
                busy_s = endpoint.end(start_mark)
                latency_s = time.monotonic() - started
            if error is None:
                status = "ok"
            elif isinstance(error, VlmError):
                status = error.reason
            else:
                status = error.kind
            if isinstance(error, VlmError) and status == "wrong_request":
                refusal = error
                error = self._after_refusal(refusal, request, profile, served)
                status = status if error is refusal else "adapted"
            if status in ("busy", "unsent", "quota", "adapted"):
                self.store.release(reservation)
            else:
                cost_usd = estimate_usd if usage is None else price.usd(*usage, busy_s)
                if answer is not None and (
                    doubt := endpoints.usage_doubt(usage, request, max_tokens)
                ):
                    # Tokens that cannot be true are as we count them, at the high estimate
                    cost_usd = estimate_usd
                    usage = endpoints.counted_tokens(request, answer, max_tokens)
                tokens = dict(
                    zip(("prompt_tokens", "completion_tokens"), usage or (0, 0), strict=True)
                )
                with self.store.transaction():
                    self.store.settle(
                        reservation, **tokens, latency_s=latency_s, cost_usd=cost_usd, status=status,
                        error=str(error) if error else doubt,
                    )  # fmt: skip
                    if completion_fields:
                        # All that traces a label back to the reply, and what was asked as it was sent
                        stored = StoredReply(
                            **completion_fields,
                            **tokens,
                            latency_s=latency_s,
                            model_root=served.root,
                            stage=request.stage,
                            prompt_version=call["prompt_version"],
                            images=tuple(image.sha256 for image in request.images),
                            params={**sampling_of(fields), "attempt": len(problems)},
                            created_at=datetime.now(UTC).isoformat(),
                            system=request.system,
                            content=tuple(request.parts),
                        )
                        self.store.put(call["call_key"], stored)
        self._learn(status)
        if error:
            raise error
        assert completion_fields is not None
        return Reply(
            call["call_key"],
            completion_fields["value"],
            *(usage or (0, 0)),
            latency_s,
            cached=False,
        )

    def _learn(self, status: str) -> None:
        """What a request's end says of later ones. Raises VlmError where replies cannot be used."""
        self._has_answer = self._has_answer or status == "ok"
        if status == "cut":
            self._room = THINKING_TOKENS
        if status in UNUSABLE:
            self._check_replies()

    async def _open_endpoint(self) -> endpoints.Endpoint:
        """One that is open, of these one that works, of these the idlest; waits until one is open."""
        while True:
            now_s = time.monotonic()
            best = min(
                self.endpoints,
                key=lambda e: (max(e.closed_until, now_s), e.shunned_until > now_s, e.in_flight),
            )
            wait_s = best.closed_until - now_s
            if wait_s <= 0:
                return best
            if wait_s > BUSY_PATIENCE_S:
                raise _too_busy_error(wait_s)
            await asyncio.sleep(wait_s + random.uniform(0, 0.05))


def _most_usd(price: Price, request: Request, max_tokens: int) -> float:
    """The most that a request may cost: every token of a long tokenization, and the longest reply."""
    if not price.usd(1, 1, 1):  # free, so that nothing has to be counted
        return 0.0
    tokens = prompt_tokens(request, FEWEST_CHARS_PER_TOKEN)
    return price.usd(tokens, max_tokens, price.busy_s(tokens, max_tokens))


def sampling_of(fields: Mapping[str, Any]) -> dict[str, Any]:
    """What a stored reply keeps of a request's fields."""
    return {name: value for name, value in fields.items() if name != "response_format"}


def _pause_s(failures: int) -> float:
    """Seconds before the next try: doubling, with jitter.

    Example: after one failure 0.25 to 0.5 s, after two 0.5 to 1 s, from the fifth on 4 to 8 s.
    """
    return min(
        LONGEST_PAUSE_S, FIRST_PAUSE_S * 2.0 ** min(failures - 1, MAX_DOUBLINGS)
    ) * random.uniform(0.5, 1.0)


def _too_busy_error(seconds: float) -> VlmError:
    remedy = "lower max_concurrency, or build again later"
    return VlmError("refused", f"the server puts us off for {seconds:.0f} s (HTTP 429): {remedy}")


async def _served_models(endpoint: endpoints.Endpoint) -> list[endpoints.Served]:
    """What an endpoint serves, tried CHECKS times. Raises VlmError."""
    tries = 0
    while True:
        try:
            return await endpoint.models()
        except endpoints.TryError as e:
            tries += 1
            after_s = e.after_s or 0.0
            if after_s > BUSY_PATIENCE_S:
                raise _too_busy_error(after_s) from None
            if tries == CHECKS:
                message = f"no server to ask ({e}): is it started, and is the address right?"
                raise VlmError("server_gone", message) from None
        await asyncio.sleep(max(after_s, _pause_s(tries)))


def _first_error(group: BaseExceptionGroup) -> BaseException:
    """One error of a group and of the groups in it, a VlmError where there is one."""
    error: BaseException = group.subgroup(VlmError) or group
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error
