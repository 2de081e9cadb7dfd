"""Servers: which one is asked next, what they answer over HTTP, and whether they are still there."""

import asyncio
import json
import math
import time
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from urllib.parse import urlsplit

import aiohttp

from annotate.model_client.calls import VlmError
from annotate.model_client.http_codec import shown
from annotate.model_client.served_models import Served

MAX_ANSWER_BYTES = 16 << 20
CHECK_TIMEOUT_S = 10.0
KEEP_ALIVE_S = 4.0  # less than uvicorn's 5: a connection is given up by us, not by the server amid a request
TIMEOUT_WEIGHT = 3  # failures that a time-out counts as: it takes so much longer than the others
MAX_SHUNNED_S = 30.0
LOOPBACK = ("127.0.0.1", "::1", "localhost")


class SendError(Exception):
    """A failure that another try may mend. `sent`: the server may have worked for it."""

    def __init__(self, why: str, *, weight: int = 1, sent: bool = True):
        super().__init__(why)
        self.weight = weight
        self.sent = sent


class BusyError(Exception):
    """The server says that it has too much to do. `retry_after_s`: None when it does not say for how long."""

    def __init__(self, retry_after_s: float | None):
        super().__init__("HTTP 429")
        self.retry_after_s = retry_after_s


class Endpoint:
    """One server. Times are of time.monotonic()."""

    def __init__(self, url: str, headers: Mapping[str, str], connections: int):
        self.url = url.rstrip("/")
        self._key = headers.get("Authorization", "").removeprefix("Bearer ")
        self.failures = 0  # in a row; such as overlap in time count once
        self.succeeded_at = -math.inf
        self.closed_until = -math.inf  # by its own word
        self.shunned_until = -math.inf  # while others do better
        self.in_flight = 0
        self._failed_at = -math.inf
        self._shared_s = 0.0  # time in use, each moment divided by the calls under way
        self._ticked = time.monotonic()
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=connections, keepalive_timeout=KEEP_ALIVE_S),
            headers={"Content-Type": "application/json", "Accept-Encoding": "identity", **headers},
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=CHECK_TIMEOUT_S),
            auto_decompress=False,
            trust_env=urlsplit(self.url).hostname not in LOOPBACK,  # proxies
        )

    async def close(self) -> None:
        await self._session.close()

    async def chat(self, body: bytes, timeout_s: float) -> bytes:
        """The body of the answer. Raises SendError, BusyError, and VlmError where another try is of no use."""
        started = time.monotonic()
        try:
            answer = await self._request("POST", "/chat/completions", body, timeout_s)
        except SendError as e:
            # Requests that were under way together fail together: only those sent after the last failure count anew
            if started >= self._failed_at:
                self.failures += e.weight
                self._failed_at = time.monotonic()
                self.shunned_until = self._failed_at + min(MAX_SHUNNED_S, 2.0 ** min(self.failures, 10))
            raise
        except BusyError as e:
            # The server's own word: it is not asked before then
            if e.retry_after_s:
                self.closed_until = max(self.closed_until, time.monotonic() + e.retry_after_s)
            raise
        # One answer clears the record: a server that is started again is asked like the others
        self.failures = 0
        self.succeeded_at = time.monotonic()
        self.shunned_until = -math.inf
        return answer

    async def models(self) -> list[Served]:
        """What it serves. Raises as `chat`."""
        body = await self._request("GET", "/models", None, CHECK_TIMEOUT_S)
        try:
            return [Served.of_card(card) for card in json.loads(body)["data"]]
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
            raise VlmError("wrong_model", f"{self.url}/models lists no models: does the address end in /v1?") from None

    async def _request(self, method: str, path: str, body: bytes | None, timeout_s: float) -> bytes:
        try:
            async with (
                asyncio.timeout(timeout_s),  # of the whole: a server may drip its answer byte by byte
                self._session.request(method, self.url + path, data=body, allow_redirects=False) as response,
            ):
                answer = await self._body(response)
        except (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError, aiohttp.InvalidURL) as e:
            # Nothing was sent, so nothing is paid for
            raise SendError(f"{self.url}: no connection ({shown(str(e), 120)})", sent=False) from None
        except TimeoutError:
            # The server may have worked all that time: such a failure weighs more than a lost connection
            raise SendError(f"{self.url}: no whole answer in {timeout_s:g} s", weight=TIMEOUT_WEIGHT) from None
        except (aiohttp.ClientError, OSError, ValueError) as e:
            raise SendError(f"{self.url}: connection broken ({shown(str(e) or type(e).__name__, 120)})") from None
        if response.status == 200:
            return answer
        raise self._refusal(response.status, response.headers, answer)

    async def _body(self, response: aiohttp.ClientResponse) -> bytes:
        """Raises SendError when it is unreasonably large."""
        chunks, size = [], 0
        async for chunk in response.content.iter_any():
            size += len(chunk)
            if size > MAX_ANSWER_BYTES:
                raise SendError(f"{self.url}: an answer of more than {MAX_ANSWER_BYTES >> 20} MB")
            chunks.append(chunk)
        return b"".join(chunks)

    def _refusal(self, status: int, headers: Mapping[str, str], answer: bytes) -> Exception:
        """The error that an answer other than 200 is: of a busy server, of one that may recover, or for good."""
        after = retry_after_s(headers.get("Retry-After"))
        if status == 429 or (status == 503 and after is not None):
            return BusyError(after)
        words = message(answer)
        if self._key:  # some servers repeat what they were given
            words = words.replace(self._key, "[key]")
        why = f"{self.url}: HTTP {status}: {shown(words)}"
        # Another try may help against an overload or a crash, not against a wrong key, name or request
        if status >= 500 or status == 408:
            return SendError(why)
        if status in (401, 403):
            return VlmError("refused", f"{why}; does the variable that api_key_env names hold the key?", is_fatal=True)
        if status == 404:
            return VlmError("wrong_model", f"{why}; is the model's name right, and does the address end in /v1?")
        return VlmError("refused", why)

    def begin(self) -> float:
        """A call begins; hand the number to `end`."""
        self._tick()
        self.in_flight += 1
        return self._shared_s

    def end(self, begun: float) -> float:
        """Seconds of the server's time that the call took: those it shared with others count in parts."""
        self._tick()
        self.in_flight -= 1
        return self._shared_s - begun

    def _tick(self) -> None:
        now = time.monotonic()
        if self.in_flight:
            self._shared_s += (now - self._ticked) / self.in_flight
        self._ticked = now


def choose(endpoints: Sequence[Endpoint]) -> tuple[Endpoint, float]:
    """Which to ask next, and in how many seconds: one that is open, of these one that works, of these the idlest."""
    # In this order: the least wait, then no recent failures, then the fewest calls under way
    now = time.monotonic()
    best = min(endpoints, key=lambda e: (max(e.closed_until, now), e.shunned_until > now, e.in_flight))
    return best, max(0.0, best.closed_until - now)


def retry_after_s(value: str | None) -> float | None:
    """The seconds that a Retry-After header asks for, be it in seconds or as a date; None where it says neither."""
    if value is None:
        return None
    try:
        seconds = float(value)
    except ValueError:
        seconds = _seconds_until(value)
    return max(0.0, seconds) if math.isfinite(seconds) else None


def _seconds_until(date: str) -> float:
    """Not a number for what is no date."""
    try:
        return (parsedate_to_datetime(date) - datetime.now(UTC)).total_seconds()
    except (ValueError, TypeError):
        return math.nan


def message(answer: bytes) -> str:
    """The words of an error's body."""
    try:
        body = json.loads(answer)
        error = body.get("error", body)
        return str(error["message"] if isinstance(error, dict) else error)
    except (ValueError, KeyError, AttributeError, RecursionError):
        return answer[:1000].decode(errors="replace") or "no message"
