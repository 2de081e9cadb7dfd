"""Servers that take other fields than vLLM: the first question finds out, and no refusal is paid for or lost."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import ValidationError

from annotate.config import VlmConfig
from annotate.model_client.endpoints import Served, body_of
from annotate.model_client.profiles import PROFILES, is_same_model, profile_of
from annotate.model_client.responses import ResponseStore
from annotate.vlm import prompts
from core.paths import ROOT
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
    "max_tokens": "Unsupported parameter: 'max_tokens' is not supported with this model. Use 'max_completion_tokens' "
    "instead.",
    "temperature": "Unsupported value: 'temperature' does not support 0 with this model. Only the default (1) value is "
    "supported.",
    "seed": 'Unknown name "seed": Cannot find field.',
    "response_format": "Invalid parameter: 'response_format' of type 'json_schema' is not supported with this model.",
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


LIMITS = yaml.safe_load((ROOT / "tests/data/told_limits.yaml").read_text())


@pytest.mark.parametrize(("name", "limit", "words"), LIMITS)
def test_a_refusal_tells_a_limit(name: str, limit: int | None, words: str) -> None:
    served = Served("m", None, None)
    assert served.with_limit_of(words) == replace(served, **{name: limit})
    limited = replace(served, context_tokens=1, reply_tokens=1, images=1)
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
    assert (
        server_facts["tokens_field"],
        server_facts["temperature"],
        server_facts["structured"],
    ) == (
        "max_completion_tokens",
        False,
        "json_schema",
    )
    assert server_facts["sees_pictures"] == "no: it calls a green picture red"
