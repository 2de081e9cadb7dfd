"""Servers over HTTP: what they serve, what they are asked, and what they answer."""

import base64
import hashlib
import json
import math
import re
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any
from urllib.parse import urlsplit

import aiohttp

from annotate.model_client import reading, tokens
from annotate.model_client.calls import Image, Request, VlmError
from annotate.model_client.profiles import LIMITS, TOO_LONG, is_same_model
from annotate.model_client.reading import one_line

# Of tokens as a server tells them, beside what was sent and came back: a count beyond these is not believed
LEAST_SHARE = 1 / 32
MOST_SHARE = 20.0
SLACK_TOKENS = 2000
BYTES_PER_TOKEN = 4
# Ways in which a reply can be of no use, though the server worked for it
BAD_REPLIES = ("bad_reply", "cut", "refusal", "filtered")
RETRY = "An earlier reply could not be used: {problem}. Reply once more, with the one JSON object and no other text."


# What a person can do about a question that is too long
MORE_ROOM = "raise the server's limit (vLLM: --max-model-len, --limit-mm-per-prompt)"


class TryError(Exception):
    """A try without a usable reply, which another try may mend.

    kind: busy (the server has too much to do), unsent (no connection), failed, or one of
    BAD_REPLIES (nothing may be labelled from it). Nobody has worked for the first two. weight: how
    many failures it counts as. after_s: how long the server asks to be left alone; None: it does
    not say.
    """

    def __init__(self, kind: str, why: str, *, weight: int = 1, after_s: float | None = None):
        super().__init__(why)
        self.kind = kind
        self.weight = weight
        self.after_s = after_s


def body_of(request: Request, model: str, fields: Mapping[str, Any], problem: str = "") -> bytes:
    """The JSON of a request. `fields`: beside model and messages, by the server's profile;
    `problem`: what was wrong with the reply before."""
    parts = [*request.content, RETRY.format(problem=problem)] if problem else request.content
    content = [
        _picture(part) if isinstance(part, Image) else {"type": "text", "text": part}
        for part in parts
    ]
    system = [{"role": "system", "content": request.system}] if request.system else []
    messages = [*system, {"role": "user", "content": content}]
    body = {"model": model, "messages": messages, **fields, **request.extra}
    return json.dumps(body).encode()


def check_pictures(request: Request) -> None:
    """Raises VlmError for a damaged picture: its hash would name an answer about another one."""
    for image in request.images:
        if hashlib.sha256(image.jpeg).hexdigest() != image.sha256:
            raise VlmError(
                "refused",
                f"keyframe {image.sha256[:12]} is damaged: its bytes are not those of its sha256",
            )


def _picture(image: Image) -> dict[str, Any]:
    kind = "png" if image.jpeg.startswith(b"\x89PNG") else "jpeg"
    data = base64.b64encode(image.jpeg).decode()
    return {"type": "image_url", "image_url": {"url": f"data:image/{kind};base64,{data}"}}


def answer_object(body: bytes) -> dict[str, Any]:
    """The JSON object of an answer. Raises TryError."""
    try:
        answer = json.loads(body)
    except (ValueError, RecursionError):
        raise TryError(
            "bad_reply", f"the answer is no JSON: {one_line(body.decode(errors='replace'))}"
        ) from None
    if not isinstance(answer, dict):
        raise TryError(
            "bad_reply",
            f"the answer is no chat completion: {one_line(body.decode(errors='replace'))}",
        )
    return answer


def usage_of(answer: Mapping[str, Any]) -> tuple[int, int] | None:
    """Prompt and completion tokens as a server tells them; None where it does not."""
    usage = answer.get("usage")
    if not isinstance(usage, dict):
        return None
    prompt = usage.get("prompt_tokens")
    reply = usage.get("completion_tokens")
    if isinstance(prompt, int) and isinstance(reply, int) and min(prompt, reply) >= 0:
        return prompt, reply
    return None


def counted_tokens(request: Request, answer: bytes, max_tokens: int) -> tuple[int, int]:
    """Prompt and reply tokens, as we count them."""
    return tokens.prompt_tokens(request), min(max_tokens, len(answer) // BYTES_PER_TOKEN)


def usage_doubt(usage: tuple[int, int] | None, request: Request, max_tokens: int) -> str | None:
    """Why tokens as a server tells them are not believed; None where they may be true.

    max_tokens: the longest reply that was asked for.
    """
    if usage is None:
        return "the server tells no tokens"
    prompt_tokens = tokens.prompt_tokens(request)
    min_tokens = (math.floor(LEAST_SHARE * prompt_tokens), 0)
    max_expected = (
        math.ceil(MOST_SHARE * prompt_tokens) + SLACK_TOKENS,
        2 * max_tokens + SLACK_TOKENS,
    )
    if all(
        low <= count <= high
        for low, count, high in zip(min_tokens, usage, max_expected, strict=True)
    ):
        return None
    statement = f"the server tells {usage[0]} prompt tokens and {usage[1]} reply tokens"
    return (
        f"{statement}, where about {prompt_tokens} and up to {max_tokens} are likely: not believed"
    )


def completion(answer: Mapping[str, Any], request: Request, names: set[str]) -> dict[str, Any]:
    """The text, value and model of the reply in an answer. `names`: what the server may call the model.

    Raises TryError, and VlmError when another model answered.
    """
    try:
        choice = answer["choices"][0]
        model = answer["model"]
        message = dict(choice["message"])
        finish = choice.get("finish_reason")
    except (KeyError, IndexError, TypeError, ValueError, AttributeError):
        raise TryError(
            "bad_reply", f"the answer is no chat completion: {one_line(json.dumps(answer))}"
        ) from None
    if not is_same_model(model, names):
        substitution = (
            f"{one_line(str(model), 80)} answered in place of {' or '.join(sorted(names))}"
        )
        raise VlmError(
            "wrong_model",
            f"{substitution}: serve the configured model, or configure the served one",
        )
    text = _message_text(message.get("content"))
    # Without a schema any text is a reply, also none and one that is cut off
    if request.schema is None:
        value = {"text": text, "finish": finish, **_first_token(choice)}
        return {"text": text, "value": value, "model": model}
    return {"text": text, "value": _reply_value(text, message, finish, request), "model": model}


def _message_text(content: Any) -> str:
    """The text of a message: as it is, or in a list of parts."""
    if isinstance(content, list):
        return "".join(str(part.get("text", "")) for part in content if isinstance(part, dict))
    if isinstance(content, str):
        return content
    return ""


def _reply_value(
    text: str, message: Mapping[str, Any], finish: str | None, request: Request
) -> dict[str, Any]:
    """The value of a reply. Raises TryError, which names what became of it."""
    assert request.schema is not None
    if refusal := message.get("refusal"):
        raise TryError("refusal", f"the model declines to answer: {one_line(str(refusal))}")
    if finish == "content_filter":
        raise TryError(
            "filtered",
            "the server's content filter took the reply away (finish_reason content_filter)",
        )
    # Some servers take the whole reply for thinking, and leave the content empty
    thinking = _message_text(message.get("reasoning_content") or message.get("reasoning"))
    try:
        return reading.read_reply(text if text.strip() else thinking, request.schema)
    except reading.UnreadableError as e:
        problem = str(e)
    if finish == "length":
        raise TryError("cut", f"the reply is cut off at {request.max_tokens} tokens (max_tokens)")
    if reading.is_refusal(text):
        raise TryError("refusal", f"the model declines to answer: {one_line(text)}")
    if not text.strip():
        if thinking:
            thinking_note = f"; {len(thinking)} characters of thinking came beside it"
        else:
            thinking_note = ""
        raise TryError("bad_reply", f"the reply is empty{thinking_note}")
    raise TryError("bad_reply", problem)


def _first_token(choice: Mapping[str, Any]) -> dict[str, Any]:
    """The likeliest first tokens of a reply with their log-probabilities, as a field; else empty."""
    try:
        likeliest = choice["logprobs"]["content"][0]["top_logprobs"]
        return {"first_token": [[str(t["token"]), float(t["logprob"])] for t in likeliest]}
    except (KeyError, IndexError, TypeError, ValueError):
        return {}


MAX_ANSWER_BYTES = 16 << 20
CHECK_TIMEOUT_S = 10.0
# Less than uvicorn's 5: a connection is given up by us, not by the server amid a request
KEEP_ALIVE_S = 4.0
TIMEOUT_WEIGHT = 3  # failures that a time-out counts as: it takes so much longer than the others
MAX_SHUNNED_S = 30.0
# Words that say that there is no more money
QUOTA = re.compile("insufficient[_ ](quota|balance|credit)|out of credits|billing hard limit", re.I)
LOOPBACK = ("127.0.0.1", "::1", "localhost")
# Fields of a card that tell `context_tokens`: of vLLM and SGLang, of OpenRouter, of Groq, of Mistral
CONTEXT_FIELDS = ("max_model_len", "context_length", "context_window", "max_context_length")


@dataclass(frozen=True)
class Served:
    """A model as its server names it, and the server's limits, as far as it tells them."""

    name: str
    root: str | None  # what was loaded under that name: a repository or a folder
    revision: str | None
    is_vllm: bool = False  # the server says so
    context_tokens: int | None = None  # of a question with its reply
    reply_tokens: int | None = None
    images: int | None = None  # of a question

    @property
    def identity(self) -> str | None:
        """The last part of the root: servers may keep the same model in different folders."""
        return self.root and self.root.rstrip("/").rpartition("/")[2]

    @classmethod
    def of_card(cls, card: Mapping[str, object]) -> "Served":
        """Of a card in /v1/models. The folder of a hub's cache tells repository and revision.

        Example: the root ".../models--Qwen--Qwen3-VL-2B/snapshots/<40 hex>" is "Qwen/Qwen3-VL-2B"
        in that revision.
        """
        root, revision = (card.get(name) for name in ("root", "revision"))
        if isinstance(root, str) and (
            cached := re.search(r"models--(.+?)/snapshots/([0-9a-f]{40})", root)
        ):
            root = cached[1].replace("--", "/")
            revision = cached[2]
        root, revision = (text if isinstance(text, str) else None for text in (root, revision))
        sizes = (card.get(name) for name in CONTEXT_FIELDS)
        context_tokens = next((n for n in sizes if isinstance(n, int) and n > 0), None)
        return cls(str(card["id"]), root, revision, card.get("owned_by") == "vllm", context_tokens)

    def with_limit_of(self, refusal: str) -> "Served | None":
        """With the limit that the words of a refusal tell; None where they are about no limit."""
        words = re.sub(r"(?<=\d),(?=\d{3})", "", refusal.casefold())
        for name, pattern in LIMITS:
            if match := re.search(pattern, words):
                limit = int(match[1])
                return replace(self, **{name: min(limit, getattr(self, name) or limit)})
        return self if re.search(TOO_LONG, words) else None

    def most_reply_tokens(self, request: Request, wanted: int) -> int:
        """The longest reply to ask for. Raises VlmError where the question leaves too little room."""
        if request.schema is None:
            return wanted
        least = math.ceil(request.max_tokens / tokens.FEWEST_CHARS_PER_TOKEN)
        if self.images is not None and len(request.images) > self.images:
            raise _too_long(f"{len(request.images)} images, and the server takes {self.images}")
        if self.context_tokens is not None:
            prompt_tokens = tokens.prompt_tokens(request)
            if prompt_tokens + least > self.context_tokens:
                size = f"about {prompt_tokens} tokens and {least} for the reply"
                raise _too_long(f"{size}, and the server holds {self.context_tokens}")
            # More only where a long tokenization leaves it
            most = tokens.prompt_tokens(request, tokens.FEWEST_CHARS_PER_TOKEN)
            wanted = min(wanted, max(least, self.context_tokens - most))
        return min(wanted, self.reply_tokens or wanted)


def _too_long(size: str) -> VlmError:
    message = f"the question is too long ({size}): {MORE_ROOM}"
    return VlmError("wrong_request", message, is_too_long=True)


class Endpoint:
    """One server. Times are of time.monotonic()."""

    def __init__(self, url: str, key: str | None, connections: int):
        self.url = url.rstrip("/")
        self._key = key
        self.failures = 0  # in a row; such as overlap in time count once
        self.succeeded_at = -math.inf
        self.closed_until = -math.inf  # by its own word
        self.shunned_until = -math.inf  # while others do better
        self.in_flight = 0
        self._failed_at = -math.inf
        self._shared_s = 0.0  # time in use, each moment divided by the calls under way
        self._ticked = time.monotonic()
        headers = {"Content-Type": "application/json", "Accept-Encoding": "identity"}
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=connections, keepalive_timeout=KEEP_ALIVE_S),
            headers=headers | ({"Authorization": f"Bearer {key}"} if key else {}),
            auto_decompress=False,
            trust_env=urlsplit(self.url).hostname not in LOOPBACK,  # proxies
        )

    async def close(self) -> None:
        await self._session.close()

    async def chat(self, body: bytes, timeout_s: float) -> bytes:
        """The body of the answer. Raises TryError, and VlmError where another try is of no use."""
        started = time.monotonic()
        try:
            answer = await self._request("POST", "/chat/completions", body, timeout_s)
        except TryError as e:
            if e.kind == "busy":  # the server's own word: it is not asked before then
                self.closed_until = max(self.closed_until, time.monotonic() + (e.after_s or 0.0))
            # Requests that were under way together fail together: only those sent after the last failure count anew
            elif started >= self._failed_at:
                self.failures += e.weight
                self._failed_at = time.monotonic()
                self.shunned_until = self._failed_at + min(
                    MAX_SHUNNED_S, 2.0 ** min(self.failures, 10)
                )
            raise
        # One answer clears the record: a server that is started again is asked like the others
        self.failures, self.succeeded_at, self.shunned_until = 0, time.monotonic(), -math.inf
        return answer

    async def models(self) -> list[Served]:
        """What it serves. Raises as `chat`."""
        body = await self._request("GET", "/models", None, CHECK_TIMEOUT_S)
        try:
            return [Served.of_card(card) for card in json.loads(body)["data"]]
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
            raise VlmError(
                "wrong_model", f"{self.url}/models lists no models: does the address end in /v1?"
            ) from None

    async def _request(self, method: str, path: str, body: bytes | None, timeout_s: float) -> bytes:
        answer = bytearray()
        # The limit is of the whole: a server may drip its answer byte by byte
        limit = aiohttp.ClientTimeout(total=timeout_s, sock_connect=CHECK_TIMEOUT_S)
        try:
            async with self._session.request(
                method, self.url + path, data=body, allow_redirects=False, timeout=limit
            ) as response:
                async for part in response.content.iter_any():
                    answer += part
                    if len(answer) > MAX_ANSWER_BYTES:
                        raise TryError(
                            "failed",
                            f"{self.url}: an answer of more than {MAX_ANSWER_BYTES >> 20} MB",
                        )
        except (
            aiohttp.ClientConnectorError,
            aiohttp.ConnectionTimeoutError,
            aiohttp.InvalidURL,
        ) as e:
            raise TryError(
                "unsent", f"{self.url}: no connection ({one_line(str(e), 120)})"
            ) from None
        except TimeoutError:
            # The server may have worked all that time: such a failure weighs more than a lost connection
            raise TryError(
                "failed", f"{self.url}: no whole answer in {timeout_s:g} s", weight=TIMEOUT_WEIGHT
            ) from None
        except (aiohttp.ClientError, OSError, ValueError) as e:
            cause = one_line(str(e) or type(e).__name__, 120)
            raise TryError("failed", f"{self.url}: connection broken ({cause})") from None
        if response.status == 200:
            return bytes(answer)
        raise self._refusal(
            response.status, retry_after_s(response.headers.get("Retry-After")), bytes(answer)
        )

    def _refusal(self, status: int, after_s: float | None, answer: bytes) -> Exception:
        """The error of an answer other than 200: the server is busy, may recover, or refuses."""
        words = _error_words(answer)
        if status == 402 or (status == 429 and QUOTA.search(words)):
            remedy = "pay the service, or raise its limit, and build again"
            return VlmError("quota", f"{self.url}: HTTP {status}: {one_line(words)}; {remedy}")
        if status == 429 or (status == 503 and after_s is not None):
            return TryError("busy", "HTTP 429", after_s=after_s)
        if self._key:  # some servers repeat what they were given
            words = words.replace(self._key, "[key]")
        message = f"{self.url}: HTTP {status}: {one_line(words)}"
        # Another try may help against an overload or a crash, not against a wrong key, name or request
        if status >= 500 or status == 408:
            return TryError("failed", message)
        if status in (401, 403):
            return VlmError(
                "refused",
                f"{message}; does the variable that api_key_env names hold the key?",
                is_fatal=True,
            )
        if status == 404:
            return VlmError(
                "wrong_model",
                f"{message}; is the model's name right, and does the address end in /v1?",
            )
        return VlmError("wrong_request", message)

    def begin(self) -> float:
        """A call begins; hand the number to `end`."""
        self._tick()
        self.in_flight += 1
        return self._shared_s

    def end(self, start_mark: float) -> float:
        """Seconds of the server that the call took; those shared with others count in parts."""
        self._tick()
        self.in_flight -= 1
        return self._shared_s - start_mark

    def _tick(self) -> None:
        now_s = time.monotonic()
        self._shared_s += (now_s - self._ticked) / max(1, self.in_flight)
        self._ticked = now_s


def retry_after_s(value: str | None) -> float | None:
    """The seconds that a Retry-After header asks for, in seconds or as a date; None: neither."""
    try:
        seconds = float(value or "")
    except ValueError:
        try:
            seconds = (parsedate_to_datetime(value or "") - datetime.now(UTC)).total_seconds()
        except (ValueError, TypeError):
            return None
    if math.isfinite(seconds):
        return max(0.0, seconds)
    return None


def _error_words(answer: bytes) -> str:
    """The words of an error's body, with its code."""
    try:
        body = json.loads(answer)
        error = body.get("error", body)
        if not isinstance(error, dict):
            return str(error)
        code = error.get("code") or error.get("type")
        if isinstance(code, str):
            return f"{error['message']} ({code})"
        return str(error["message"])
    except (ValueError, KeyError, AttributeError, RecursionError):
        return answer[:1000].decode(errors="replace") or "no message"
