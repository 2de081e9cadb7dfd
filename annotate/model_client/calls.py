"""Questions to a vision-language model, and its answers. Light to import."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from core.errors import FailedError

# These concern the whole partition; others the one question, unless one of them comes again and again
FATAL = ("server_gone", "budget", "wrong_model", "quota")
Reason = Literal[
    "server_gone", "budget", "wrong_model", "quota",
    "bad_reply", "cut", "refusal", "filtered", "wrong_request", "refused", "changed_during_build",
]  # fmt: skip


class VlmError(FailedError):
    """Why there is no reply: a reason code, and one line for people that says what, where and what to do.

    is_too_long: the server cannot hold the question; with fewer pictures it may.
    """

    def __init__(
        self,
        reason: Reason,
        message: str,
        *,
        is_fatal: bool | None = None,
        is_too_long: bool = False,
    ):
        super().__init__(message)
        self.reason: Reason = reason
        self.is_too_long = is_too_long
        # No other question of this client will be answered either
        self.is_fatal = reason in FATAL if is_fatal is None else is_fatal


@dataclass(frozen=True)
class Image:
    """A picture as it is stored: a JPEG, or a PNG where its very pixels matter."""

    sha256: str
    jpeg: bytes = field(repr=False)

    @classmethod
    def of(cls, jpeg: bytes) -> "Image":
        return cls(hashlib.sha256(jpeg).hexdigest(), jpeg)


@dataclass(frozen=True)
class Request:
    """One question. `content` is the user message: texts and images in order.

    Without a schema any text is a reply, also none and one that is cut off; its value is {"text",
    "finish"}, and {"first_token": [[token, log-probability], ...]} where `extra` asks for logprobs
    and the server gives them.
    """

    stage: str
    system: str  # empty: no system message
    content: tuple[str | Image, ...]
    schema: Mapping[str, Any] | None  # JSON schema of the reply, sent as response_format
    max_tokens: int
    temperature: float = 0.0
    seed: int = 0
    model: str = ""  # empty: the client's model
    extra: Mapping[str, Any] = field(default_factory=dict)  # further fields of the request's body

    @property
    def images(self) -> tuple[Image, ...]:
        return tuple(part for part in self.content if isinstance(part, Image))

    @property
    def parts(self) -> list[str | dict[str, str]]:
        """The content with pictures by their hash, as keys and stored replies have it."""
        return [part if isinstance(part, str) else {"sha256": part.sha256} for part in self.content]

    def key(self, model: str, revision: str | None) -> str:
        """sha256 of all that the answer depends on: not where it is asked, when, or for what stage."""
        key_parts = {
            "model": self.model or model,
            "revision": revision or "",
            "system": self.system,
            "content": self.parts,
            # As it is sent: a model fills it in the order of its properties
            "schema": json.dumps(self.schema),
            "max_tokens": self.max_tokens,
            "temperature": float(self.temperature),
            "seed": self.seed,
        }
        if self.extra:
            key_parts["extra"] = dict(self.extra)
        return hashlib.sha256(canonical(key_parts).encode()).hexdigest()


@dataclass(frozen=True)
class Reply:
    """`value` is valid for the request's schema. `cached`: nothing was sent for this asker."""

    key: str
    value: dict[str, Any]
    prompt_tokens: int
    completion_tokens: int
    latency_s: float
    cached: bool


def canonical(value: Any) -> str:
    return json.dumps(
        value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False
    )
