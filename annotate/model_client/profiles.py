"""What each kind of server takes in a request, in one table; and what to leave out of the next one when it refuses.

A server is known by its address, else taken as vLLM. One that refuses a request in words that name
a field is asked again without it: nobody has worked for the first one, so the first question of a
build is also the probe.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal
from urllib.parse import urlsplit

from annotate.model_client.calls import Request

type Structured = Literal["json_schema", "json_object", "none"]


@dataclass(frozen=True)
class ServerProfile:
    """source: what it rests on. hosts: how addresses of such servers end."""

    name: str
    source: str
    hosts: tuple[str, ...] = ()
    tokens_field: Literal["max_tokens", "max_completion_tokens"] = "max_tokens"
    temperature: bool = True
    seed: bool = True
    # In which form it is told the schema; the prompt has it in words anyway
    structured: Structured = "json_schema"

    def fields(self, request: Request, max_tokens: int, temperature: float) -> dict[str, Any]:
        """The fields of a request beside model, messages and those that it brings itself.

        A seed goes with temperature 0 alone: vLLM 0.32 on CPU dies of one with a temperature above
        0.
        """
        fields: dict[str, Any] = {self.tokens_field: max_tokens}
        if self.temperature:
            fields["temperature"] = temperature
        if self.seed and not temperature:
            fields["seed"] = request.seed
        if request.schema is not None and self.structured == "json_schema":
            schema = {"name": request.stage, "strict": True, "schema": request.schema}
            fields["response_format"] = {"type": "json_schema", "json_schema": schema}
        if request.schema is not None and self.structured == "json_object":
            fields["response_format"] = {"type": "json_object"}
        return fields

    def without(self, refusal: str) -> "ServerProfile | None":
        """The profile for a server that refused in these words; None: they name none of its fields."""
        plain_refusal = refusal.casefold()
        for field, value, words, replacement in REPLACEMENTS:
            if getattr(self, field) == value and re.search(words, plain_refusal):
                return replace(self, **{field: replacement})
        return None

    def facts(self) -> dict[str, str | bool]:
        names = ("name", "tokens_field", "temperature", "seed", "structured", "source")
        return {name: getattr(self, name) for name in names}


# A field of a profile, its value, words of a refusal that name it, and the value for the next request
REPLACEMENTS: tuple[tuple[str, Any, str, Any], ...] = (
    (
        "tokens_field",
        "max_tokens",
        r"max_tokens.*(not supported|unsupported|instead)",
        "max_completion_tokens",
    ),
    ("structured", "json_schema", r"json_schema|response_format|guided|grammar", "json_object"),
    ("structured", "json_object", r"json_object|response_format", "none"),
    ("temperature", True, r"temperature", False),
    ("seed", True, r"\bseed\b", False),
)
# A limit (a field of endpoints.Served), and words of a refusal that tell it, without commas in numbers: those of vLLM
# 0.9 to 0.33, SGLang, llama.cpp, OpenAI, Anthropic, Gemini, DeepSeek, xAI and OpenRouter. Of the rows the first counts
LIMITS: tuple[tuple[str, str], ...] = (
    ("images", r"(?:at most|up to|maximum of|image=) ?(\d+)(?: images?\b| \(or defaulted)"),
    (
        "reply_tokens",
        r"(?:at most (?=\d+ completion tokens)|max_tokens is \[1, |max_tokens: \d+ > )(\d+)",
    ),
    (
        "context_tokens",
        r"(?:(?:max_model_len|(?:context|model|prompt|allowed) (?:length|size|window)|tokens allowed)\D{1,20}"
        r"|too long: \d+ tokens > |context limit: [\d +]+> )(\d+)",
    ),
)
# Words of a refusal that say only that a question is too long
TOO_LONG = r"http 413|too long|too many (?:images|tokens)|context[_ ](?:length|size|window)"
PROFILES = (
    ServerProfile(
        "vllm",
        "vLLM 0.32.0, run, and 0.33.0, its protocol; SGLang 0.5.23 and LMDeploy 0.18.0, their protocols",
    ),
    ServerProfile(
        "openai",
        "api.openai.com, GPT-5 family, as its issues of 2026 have it; not run",
        ("api.openai.com",),
        tokens_field="max_completion_tokens",
        temperature=False,
    ),
    ServerProfile(
        "gemini",
        "its OpenAI endpoint, documentation of 2026; not run",
        ("googleapis.com",),
        seed=False,
    ),
    ServerProfile(
        "json_mode",
        "services of Qwen, Zhipu and DeepSeek, a survey of October 2026; not run",
        ("aliyuncs.com", "bigmodel.cn", "api.deepseek.com"),
        structured="json_object",
    ),
)
NAMES = ("auto", *(profile.name for profile in PROFILES))


def profile_of(url: str, name: str = "auto") -> ServerProfile:
    """The profile of that name; with `auto` the one of the server at an address."""
    if name != "auto":
        return next(profile for profile in PROFILES if profile.name == name)
    host = urlsplit(url).hostname or ""
    return next((p for p in PROFILES if host.endswith(p.hosts)), PROFILES[0])


# What services put behind the name of a model
DATED = re.compile(r"-(\d{4}-\d\d-\d\d|\d{8}|\d{4})$")


def is_same_model(reported_name: object, names: Mapping[str, Any] | set[str]) -> bool:
    """Is a model of that name one of those, be it with a date behind it or a folder before it?

    Example: "gpt-5.1-2026-03-01" and "models/gpt-5.1" are gpt-5.1.
    """
    plain = str(reported_name).removeprefix("models/")
    return plain in names or reported_name in names or DATED.sub("", plain) in names
