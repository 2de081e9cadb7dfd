"""Replies as real models and servers give them: read as people would, or lost under a name.

The forms are those that models and servers of 2026 were seen to use.
"""

import asyncio
import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import cycle
from typing import Any

import pytest
from pydantic import ValidationError

from annotate.config import VERBS, VlmConfig
from annotate.model_client.calls import Reply, Request, VlmError
from annotate.model_client.client import Client
from annotate.model_client.endpoints import Served, body_of, usage_doubt
from annotate.model_client.profiles import PROFILES, is_same_model, profile_of
from annotate.model_client.reading import UnreadableError, read_reply
from annotate.model_client.responses import ResponseStore
from annotate.vlm import prompts
from benchmarks.vlm_other_ways import blank
from pipeline.model_probe import probe
from tests.kits.files import table
from tests.kits.vlm_standin import StandIn, serving

pytestmark = pytest.mark.usefixtures("short_pauses")
PLAN = prompts.plan_reply(VERBS, 8, infer_task=False)
SEGMENT = prompts.segment_reply(range(1, 25), 3, min_changes=1)
PLANNED = {
    "scene": "An arm",
    "steps": [{"verb": "Grasp", "object": "the cup"}, {"verb": "Place", "object": "it"}],
}
DIVIDED = {
    "seen": "It moves",
    "first": {"label": "1", "outcome": "achieved"},
    "changes": [{"picture": 13, "label": "2", "outcome": "achieved"}],
}
GOOD = json.dumps(PLANNED)
FIRST = PLANNED["steps"][0]


def planned(**step: str) -> str:
    """The plan with another first step."""
    return json.dumps(PLANNED | {"steps": [FIRST | step, PLANNED["steps"][1]]}, ensure_ascii=False)


def thought(text: str) -> str:
    return json.dumps(PLANNED | {"scene": text}, ensure_ascii=False)


def changed(picture: Any) -> str:
    return json.dumps(DIVIDED | {"changes": [DIVIDED["changes"][0] | {"picture": picture}]})


# What a reply says, and the part of the plan or of the division that it is read as; None: all of it
READ_AS_PLAN: dict[str, str] = {
    "plain": GOOD,
    "fence": f"```json\n{GOOD}\n```",
    "fence without a language": f"```\n{GOOD}\n```",
    "words before": f"Here is the JSON:\n{GOOD}",
    "words after": f"{GOOD}\nThe plan has two steps.",
    "thinking before": f'<think>Maybe {{"scene": "no"}}? The cup.</think>\n{GOOD}',
    "thinking without its beginning": f"The arm takes the cup.</think>{GOOD}",
    "a draft before": f"{planned(object='the mug')}\nNo, it is a cup:\n{GOOD}",
    "an extra key": json.dumps(PLANNED | {"confidence": 0.9}),
    "a wrapper": json.dumps({"answer": PLANNED}),
    "a list of one": json.dumps([PLANNED]),
    "verb in lower case": planned(verb="grasp"),
    "keys in capitals": json.dumps({"Scene": "An arm", "Steps": PLANNED["steps"]}),
    "line break in a text": GOOD.replace("An arm", "An\narm"),
}
READ_AS_TEXT: dict[str, tuple[str, str]] = {
    "curly apostrophe": (thought("The arm’s cup"), "The arm's cup"),
    "em dash": (thought("An arm — a cup"), "An arm - a cup"),
    "quotation marks": (thought('An arm, a "cup"'), "An arm, a 'cup'"),
    "a long thought": (thought("x" * 400), "x" * 237 + "..."),
    "no thought": (json.dumps({"steps": PLANNED["steps"]}), ""),
    "thought in Chinese": (thought("机械臂抓住杯子"), "机械臂抓住杯子"),
}


@pytest.mark.parametrize("form", READ_AS_PLAN)
def test_a_plan_in_any_form_is_read(form):
    value = read_reply(READ_AS_PLAN[form], PLAN)
    assert (value["scene"], value["steps"]) == ("An arm", PLANNED["steps"])


@pytest.mark.parametrize("form", READ_AS_TEXT)
def test_a_thought_in_any_form_is_read(form):
    text, scene = READ_AS_TEXT[form]
    assert read_reply(text, PLAN) == PLANNED | {"scene": scene}


def test_a_name_and_a_number_are_read_in_any_writing():
    for picture in ("13", "Picture 13", 13.0):
        assert read_reply(changed(picture), SEGMENT) == DIVIDED
    assert read_reply(planned(object="红色的杯子"), PLAN)["steps"][0]["object"] == "红色的杯子"
    division = DIVIDED | {"first": {"label": 1, "outcome": "Not achieved"}}
    value = read_reply(json.dumps(division), SEGMENT)
    assert value["first"] == {"label": "1", "outcome": "not_achieved"}
    for word, is_completed in (("Yes", True), ("no", False), ("False", False)):
        verdict = {"attempt_1": {"criterion": "It", "evidence": "It", "completed": word}}
        value = read_reply(json.dumps(verdict), prompts.verify_reply(1))
        assert value["attempt_1"]["completed"] is is_completed


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("The robot grasps the cup.", "no JSON"),
        (GOOD[:-4], "no JSON|breaks the schema"),
        (planned(verb="Juggle"), "'Juggle' is not one of"),
        (planned(object=""), r"steps\[0\]\.object"),
        (json.dumps(DIVIDED | {"changes": []}), r"changes: \[\]"),
        (json.dumps(DIVIDED | {"changes": DIVIDED["changes"] * 40}), "changes"),
        ("{" * 100_000, "no JSON"),
        ('{"scene": NaN, "steps": []}', "no JSON"),
        # What is no picture of the list is never guessed
        *(
            (changed(picture), r"breaks the schema: \$\.changes\[0\]\.picture")
            for picture in ("00:13", 12.7, 392, 25, 1, -13)
        ),
    ],
)
def test_what_cannot_be_read_is_lost_with_what_is_wrong(text, problem):
    with pytest.raises(UnreadableError, match=problem):
        read_reply(text, PLAN if "changes" not in text else SEGMENT)


def message(content: Any, finish: str = "stop", **message_fields: Any) -> dict[str, Any]:
    return {
        "message": {"role": "assistant", "content": content, **message_fields},
        "finish_reason": finish,
    }


@dataclass
class Speaker(StandIn):
    """Answers with what `say` makes of a request, or with an error: (status, body)."""

    say: Callable[[dict[str, Any]], Any] = lambda body: message(GOOD)
    usage: Any = None

    def chat(self, body: bytes, handler: Any) -> None:
        request = json.loads(body)
        self.seen.append(request)
        reply = self.say(request)
        if isinstance(reply, tuple):
            handler.answer(reply[1], reply[0])
            return
        usage = self.usage or {"prompt_tokens": 900, "completion_tokens": 60}
        handler.answer({"model": request["model"], "choices": [reply], "usage": usage})


QUESTION = Request("plan", "You look.", (blank(640, 480), "What?"), PLAN, max_tokens=500)


def asked(
    reply_to: Callable[[dict[str, Any]], Any],
    store: ResponseStore,
    usage: Any = None,
    count: int = 1,
    **config: Any,
):
    async def ask_all() -> tuple[list[Reply | VlmError], Speaker]:
        settings = VlmConfig(model="stand-in", endpoints=(server.url,), **config)
        client = Client(
            settings, store, build_id="b", dataset="demo", label_run="run", prompt_version="v1"
        )
        async with client:
            asks = [client.ask(_about(k), k) for k in range(count)]
            replies = await asyncio.gather(*asks, return_exceptions=True)
        return replies, server

    with serving(Speaker(say=reply_to, usage=usage)) as server:
        return asyncio.run(asyncio.wait_for(ask_all(), 60))


def _about(episode: int) -> Request:
    return Request("plan", "You look.", (*QUESTION.content, f"{episode}"), PLAN, max_tokens=500)


READ = {
    "a list of parts": message([{"type": "text", "text": GOOD}]),
    "all of it taken for thinking": message(None, reasoning_content=f"Well. {GOOD}"),
    "thinking beside it": message(GOOD, reasoning="Well."),
    "words after a cut": message(f"{GOOD} and so on", "length"),
}
LOST = {
    "refusal": (message(None, refusal="I can't help with that"), "refusal"),
    "refusal in words": (message("I’m sorry, but I can't assist with this."), "refusal"),
    "filter": (message("", "content_filter"), "filtered"),
    "cut": (message(GOOD[:50], "length"), "cut"),
    "empty": (message(""), "bad_reply"),
    "only thinking": (message(None, reasoning_content="Well, the cup."), "bad_reply"),
    "prose": (message("The robot grasps the cup."), "bad_reply"),
}


@pytest.mark.parametrize("form", READ)
def test_a_message_in_any_form_is_read_at_once(form, tmp_path):
    [reply], server = asked(lambda _: READ[form], ResponseStore(tmp_path))
    assert reply.value == PLANNED
    assert len(server.seen) == 1


@pytest.mark.parametrize("form", LOST)
def test_what_cannot_be_read_is_lost_under_its_name_and_stops_a_build(form, tmp_path):
    bad_message, reason = LOST[form]
    store = ResponseStore(tmp_path)
    [error], server = asked(lambda _: bad_message, store)
    assert error.reason == reason
    assert len(server.seen) == 2
    second_text = server.seen[1]["messages"][-1]["content"][-1]["text"]
    assert "could not be used" in second_text
    [call] = store.calls("b")
    assert (call["status"], call["prompt_tokens"], call["completion_tokens"]) == (reason, 1800, 120)
    replies, server = asked(lambda _: bad_message, store, count=64)
    assert len(server.seen) <= 20
    error = replies[-1]
    assert error.is_fatal
    assert error.reason == reason
    assert f"all ended as {reason}: " in str(error)
    # The next partition of that build asks nothing
    [repeated], server = asked(lambda _: message(GOOD), store)
    assert (repeated.is_fatal, server.seen) == (True, [])


def test_a_model_that_thinks_gets_room_once_a_reply_was_cut(tmp_path):
    def say(body: dict[str, Any]) -> dict[str, Any]:
        if body["max_tokens"] > 900:
            return message(GOOD)
        return message("Thinking", "length")

    store = ResponseStore(tmp_path)
    replies, server = asked(say, store, count=6, max_concurrency=1)
    assert [reply.value for reply in replies] == [PLANNED] * 6
    assert len(server.seen) == 7


@pytest.mark.parametrize(
    ("forms", "stops"),
    [
        ([form for form, _ in LOST.values()], True),
        ([message(GOOD), message("No"), message("No")], False),
    ],
)
def test_a_build_stops_where_no_reply_is_good(forms, stops, tmp_path):
    in_turn = cycle(forms)
    replies, server = asked(lambda _: next(in_turn), ResponseStore(tmp_path), count=64)
    assert any(isinstance(e, VlmError) and e.is_fatal for e in replies) == stops
    assert (len(server.seen) <= 20) == stops


@pytest.mark.parametrize(
    ("status", "error", "reason", "requests"),
    [
        (429, {"message": "You exceeded your quota", "code": "insufficient_quota"}, "quota", 8),
        (402, {"message": "Insufficient Balance"}, "quota", 8),
        (400, {"message": "max_tokens is not supported"}, "wrong_request", 20),
    ],
)
def test_a_server_that_wants_money_or_other_fields_stops_a_build(
    status, error, reason, requests, tmp_path
):
    replies, server = asked(lambda _: (status, {"error": error}), ResponseStore(tmp_path), count=64)
    assert len(server.seen) <= requests
    assert replies[-1].is_fatal
    assert replies[-1].reason == reason
    assert error["message"] in str(replies[0])


@pytest.mark.parametrize(
    "usage", [*({"prompt_tokens": n, "completion_tokens": n} for n in (0, 10**30)), "some"]
)
def test_tokens_that_cannot_be_true_are_counted_by_us(usage, tmp_path):
    store = ResponseStore(tmp_path)
    price = {"usd_per_million_prompt_tokens": 1000.0}
    [reply], _ = asked(lambda _: message(GOOD), store, usage, price=price)
    assert reply.value == PLANNED
    [call] = store.calls("b")
    assert 300 < call["prompt_tokens"] < 600
    assert call["cost_usd"] > 0.3
    assert "the server tells" in call["error"]


def test_true_tokens_are_believed():
    for usage in ((400, 60), (60, 0), (5_000, 900)):
        assert usage_doubt(usage, QUESTION, 500) is None


# Words in which servers refuse a field, as their issues have them
REFUSALS = {
    "max_tokens": "'max_tokens' is not supported with this model. Use 'max_completion_tokens'.",
    "temperature": "'temperature' does not support 0 with this model. Only the default (1) value.",
    "seed": 'Unknown name "seed": Cannot find field.',
    "response_format": "'response_format' of type 'json_schema' is not supported with this model.",
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
def test_a_server_that_refuses_fields_is_asked_without_them(refused, tmp_path):
    store = ResponseStore(tmp_path)
    replies, server = asked(strict(*refused), store, count=30)
    assert [reply.value for reply in replies] == [PLANNED] * 30
    # Only those that were under way at first were refused
    assert len(server.seen) <= 30 + 4 * len(refused)
    assert {call["status"] for call in store.calls("b")} == {"ok"}
    last = server.seen[-1]
    assert ("max_completion_tokens" in last) == ("max_tokens" in refused)
    assert last.get("response_format", {}).get("type") == (
        "json_object" if "response_format" in refused else "json_schema"
    )


LIMITS = table("told_limits")


@pytest.mark.parametrize(("name", "limit", "words"), LIMITS)
def test_a_refusal_tells_a_limit(name, limit, words):
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
def test_a_server_is_known_by_its_address(url, name):
    assert VlmConfig(endpoints=(f"{url}/",)).endpoints == (url,)
    assert profile_of(url).name == name
    assert profile_of(url, "openai").name == "openai"


def test_an_address_without_a_path_is_no_base():
    for address in ("http://127.0.0.1:8000", "127.0.0.1:8000/v1"):
        with pytest.raises(ValidationError, match="no OpenAI-compatible base"):
            VlmConfig(endpoints=(address,))


def test_the_fields_of_each_profile():
    fields = {profile.name: set(profile.fields(QUESTION, 100, 0.0)) for profile in PROFILES}
    assert fields == {
        "vllm": {"max_tokens", "temperature", "seed", "response_format"},
        "openai": {"max_completion_tokens", "seed", "response_format"},
        "gemini": {"max_tokens", "temperature", "response_format"},
        "json_mode": {"max_tokens", "temperature", "seed", "response_format"},
    }


def test_a_model_may_answer_by_its_dated_name():
    for model_name in ("gpt-5.1", "gpt-5.1-2026-03-01", "models/gpt-5.1", "gpt-5.1-20260301"):
        assert is_same_model(model_name, {"gpt-5.1"})
    for model_name in ("gpt-5.1-mini", "gpt-5", "", None):
        assert not is_same_model(model_name, {"gpt-5.1"})


def test_further_fields_are_a_part_of_each_question():
    config = VlmConfig(extra_body={"chat_template_kwargs": {"enable_thinking": False}})
    request, plain = (
        prompts.request("plan", QUESTION.images, "What?", PLAN, vlm_config)
        for vlm_config in (config, VlmConfig())
    )
    assert request.key("m", None) != plain.key("m", None)
    assert json.loads(body_of(request, "m", {}))["chat_template_kwargs"] == {
        "enable_thinking": False
    }


def test_a_check_says_what_a_server_takes():
    def say(body: dict[str, Any]) -> Any:
        refused = strict("max_tokens", "temperature")(body)
        if isinstance(refused, tuple):
            return refused
        return message(json.dumps({"seen": "x", "colour": "Red"}))

    with serving(Speaker(say=say, usage={"prompt_tokens": 90, "completion_tokens": 9})) as server:
        server_facts = probe(VlmConfig(endpoints=(server.url,), model="stand-in"))
    assert server_facts["tokens_field"] == "max_completion_tokens"
    assert server_facts["temperature"] is False
    assert server_facts["structured"] == "json_schema"
    assert server_facts["sees_pictures"] == "no: it calls a green picture red"
