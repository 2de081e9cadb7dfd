"""Servers that take other fields than vLLM: the first question finds out."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from annotate.config import VlmConfig
from annotate.model_client.endpoints import Served, body_of
from annotate.model_client.profiles import PROFILES, is_same_model, profile_of
from annotate.model_client.responses import ResponseStore
from annotate.vlm import prompts
from pipeline.model_probe import probe
from tests.annotate.model_client.test_reading import (
    GOOD,
    PLAN,
    PLANNED,
    QUESTION,
    Speaker,
    asked,
    message,
)
from tests.kits.vlm_standin import serving

pytestmark = pytest.mark.usefixtures("short_pauses")

# Words in which servers refuse a field, as their issues have them
REFUSALS = {
    "max_tokens": "Unsupported parameter: 'max_tokens'. Use 'max_completion_tokens' instead.",
    "temperature": "Unsupported value: 'temperature' does not support 0 with this model.",
    "seed": 'Unknown name "seed": Cannot find field.',
    "response_format": "Invalid parameter: 'response_format' of type 'json_schema'",
}


def strict(*refused: str) -> Callable[[dict[str, Any]], Any]:
    """A server that refuses some fields, one at a time."""

    def say(body: dict[str, Any]) -> Any:
        for field in refused:
            if field in body and (
                field != "response_format" or body[field]["type"] == "json_schema"
            ):
                return 400, {"error": {"message": REFUSALS[field], "type": "invalid_request_error"}}
        return message(f"```json\n{GOOD}\n```")

    return say


@pytest.mark.parametrize(
    "refused",
    [("max_tokens", "temperature"), ("temperature", "seed"), ("response_format",), tuple(REFUSALS)],
)
def test_a_server_that_refuses_fields_is_asked_without_them(
    refused: tuple[str, ...], tmp_path: Path
) -> None:
    store = ResponseStore(tmp_path)
    replies, server = asked(strict(*refused), store, count=30)
    assert [reply.value for reply in replies] == [PLANNED] * 30
    assert len(server.seen) <= 30 + 4 * len(refused), (
        "only those that were under way at first were refused"
    )
    assert {call["status"] for call in store.calls("b")} == {"ok"}
    last = server.seen[-1]
    assert ("max_completion_tokens" in last) == ("max_tokens" in refused)
    assert last.get("response_format", {}).get("type") == (
        "json_object" if "response_format" in refused else "json_schema"
    )


def test_a_refusal_that_names_no_field_is_lost(tmp_path: Path) -> None:
    [error], _ = asked(
        lambda _: (400, {"error": {"message": "no picture is taken"}}), ResponseStore(tmp_path)
    )
    assert error.reason == "wrong_request"


# A limit, and words of servers that tell it, as their code and issues have them; None: only that a question is too long
LIMITS: dict[str, dict[str, int | None]] = {
    "context_tokens": {
        "max_tokens=5178 cannot be greater than max_model_len=4096.": 4096,
        "This model's maximum context length is 4096 tokens. However,": 4096,
        "The decoder prompt (length 5000) is longer than the maximum model length of 4096.": 4096,
        "The input (5000 tokens) is longer than the model's context length (4096 tokens).": 4096,
        "Input length (5000 tokens) exceeds the maximum allowed length (4096 tokens).": 4096,
        "request (9412 tokens) exceeds the available context size (8192 tokens), try": 8192,
        "This endpoint's maximum context length is 200,000 tokens.": 200000,
        "prompt is too long: 213462 tokens > 200000 maximum": 200000,
        "input length and `max_tokens` exceed context limit: 190000 + 20000 > 200000": 200000,
        "The input token count (119626) exceeds the maximum number of tokens allowed (104857).": 104857,
        "This model's maximum prompt length is 131072 but": 131072,
    },
    "reply_tokens": {
        "max_tokens is too large. This model supports at most 16384 completion tokens": 16384,
        "Invalid max_tokens value, the valid range of max_tokens is [1, 8192]": 8192,
        "max_tokens: 30000 > 16000, which is the maximum allowed number of output tokens": 16000,
    },
    "images": {
        "At most 4 image(s) may be provided in one prompt.": 4,
        "You set image=2 (or defaulted to 1) in `--limit-mm-per-prompt`": 2,
        "HTTP 413: Request Entity Too Large": None,
        "too many images and documents: 21 + 0 > 20": None,
        "the request exceeds the available context size. try increasing the context size": None,
    },
}


@pytest.mark.parametrize("name", LIMITS)
def test_a_refusal_tells_a_limit(name: str) -> None:
    served = Served("m", None, None)
    limited = replace(served, context_tokens=1, reply_tokens=1, images=1)
    for words, limit in LIMITS[name].items():
        assert served.with_limit_of(words) == replace(served, **{name: limit})
        assert limited.with_limit_of(words) == limited, "a limit is never raised"


@pytest.mark.parametrize(
    ("url", "name"),
    [
        ("http://127.0.0.1:8000/v1", "vllm"),
        ("https://api.openai.com/v1", "openai"),
        ("https://generativelanguage.googleapis.com/v1beta/openai", "gemini"),
        ("https://dashscope-intl.aliyuncs.com/compatible-mode/v1", "json_mode"),
        ("https://open.bigmodel.cn/api/paas/v4", "json_mode"),
    ],
)
def test_a_server_is_known_by_its_address(url: str, name: str) -> None:
    assert VlmConfig(endpoints=(f"{url}/",)).endpoints == (url,)
    assert profile_of(url).name == name
    assert profile_of(url, "openai").name == "openai"


def test_an_address_without_a_path_is_no_base() -> None:
    for address in ("http://127.0.0.1:8000", "127.0.0.1:8000/v1"):
        with pytest.raises(ValidationError, match="no OpenAI-compatible base"):
            VlmConfig(endpoints=(address,))


def test_the_fields_of_each_profile() -> None:
    fields = {profile.name: set(profile.fields(QUESTION, 100, 0.0)) for profile in PROFILES}
    assert fields == {
        "vllm": {"max_tokens", "temperature", "seed", "response_format"},
        "openai": {"max_completion_tokens", "seed", "response_format"},
        "gemini": {"max_tokens", "temperature", "response_format"},
        "json_mode": {"max_tokens", "temperature", "seed", "response_format"},
    }


def test_a_model_may_answer_by_its_dated_name() -> None:
    for model_name in ("gpt-5.1", "gpt-5.1-2026-03-01", "models/gpt-5.1", "gpt-5.1-20260301"):
        assert is_same_model(model_name, {"gpt-5.1"})
    for model_name in ("gpt-5.1-mini", "gpt-5", "", None):
        assert not is_same_model(model_name, {"gpt-5.1"})


def test_further_fields_are_a_part_of_each_question() -> None:
    config = VlmConfig(extra_body={"chat_template_kwargs": {"enable_thinking": False}})
    request, plain = (
        prompts.request("plan", QUESTION.images, "What?", PLAN, vlm_config)
        for vlm_config in (config, VlmConfig())
    )
    assert request.key("m", None) != plain.key("m", None)
    assert json.loads(body_of(request, "m", {}))["chat_template_kwargs"] == {
        "enable_thinking": False
    }


def test_a_check_says_what_a_server_takes() -> None:
    def say(body: dict[str, Any]) -> Any:
        refused = strict("max_tokens", "temperature")(body)
        if isinstance(refused, tuple):
            return refused
        return message(json.dumps({"seen": "x", "colour": "Red"}))

    with serving(Speaker(say=say, usage={"prompt_tokens": 90, "completion_tokens": 9})) as server:
        server_facts = probe(VlmConfig(endpoints=(server.url,), model="stand-in"))
    assert server_facts["tokens_field"] == "max_completion_tokens"
    assert server_facts["structured"] == "json_schema"
    assert not server_facts["temperature"]
    assert server_facts["sees_pictures"] == "no: it calls a green picture red"
