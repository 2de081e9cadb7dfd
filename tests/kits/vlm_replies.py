"""What the stand-in of a model answers: valid for the schema, or spoilt on purpose."""

import base64
import io
import json
import math
import random
from typing import Any

from PIL import Image

IN_THE_REPLY = ("wrong_model", "cut", "not_json", "off_schema", "refusal", "filtered", "even")
WORDS_WEIGHED = ("True", "False")  # the likeliest first tokens of a free text
WORDS = (
    "red",
    "cup",
    "bowl",
    "left",
    "drawer",
    "towel",
    "block",
    "lid",
    "plate",
    "near",
    "box",
    "handle",
)


def completion(
    model: str, text: str, prompt_tokens: int, completion_tokens: int, finish: str = "stop"
) -> dict:
    message = {"role": "assistant", "content": text}
    return {
        "id": "chatcmpl-stand-in",
        "object": "chat.completion",
        "model": model,
        "choices": [{"index": 0, "message": message, "finish_reason": finish}],
        "usage": {"prompt_tokens": prompt_tokens, "completion_tokens": completion_tokens},
    }


def answer(request: dict[str, Any], sha256: str, fault: str | None) -> dict[str, Any]:
    """The reply to a chat request: a function of its bytes and the fault."""
    rng = random.Random(sha256)
    if "response_format" not in request:
        return free_text(request, rng)
    schema = request["response_format"]["json_schema"]["schema"]
    value = fill(schema, rng)
    if fault == "even":
        value = even(schema["properties"], value)
    elif fault == "off_schema":
        value = {"surprise": value, "more": 1}
    text = "I think that the robot" if fault == "not_json" else json.dumps(value)
    finish = "stop"
    tokens = max(1, len(text) // 4)
    if fault == "cut" or tokens > request["max_tokens"]:
        tokens = min(tokens, request["max_tokens"])
        text = text[: min(tokens * 4, len(text) - 2)]
        finish = "length"
    model = "another-model" if fault == "wrong_model" else request["model"]
    finish = "content_filter" if fault == "filtered" else finish
    reply = completion(model, text, prompt_tokens(request["messages"]), tokens, finish)
    if fault == "refusal":
        reply["choices"][0]["message"] |= {"content": None, "refusal": "I cannot help with that."}
    return reply


def free_text(request: dict[str, Any], rng: random.Random) -> dict[str, Any]:
    """A percentage, with ProgressLM's tags or log-probabilities where they are asked for."""
    percent = rng.randint(0, 100)
    text = f"{percent}%"
    if "<ref_think>" in json.dumps(request["messages"]):
        text = f"<ref_think>so</ref_think><ref>1</ref><score_think>so</score_think><score>{percent}%</score>"
    reply = completion(
        request["model"], text, prompt_tokens(request["messages"]), max(1, len(text) // 4)
    )
    if request.get("logprobs"):
        yes = (1 + percent) / 102
        likeliest = [
            {"token": t, "logprob": math.log(p)}
            for t, p in zip(WORDS_WEIGHED, (yes, 1 - yes), strict=True)
        ]
        reply["choices"][0]["logprobs"] = {"content": [{**likeliest[0], "top_logprobs": likeliest}]}
    return reply


def prompt_tokens(messages: list[dict[str, Any]]) -> int:
    """Four characters a token; an image by Qwen3-VL's patches of 32 x 32 px and two markers."""
    total = 0
    for message in messages:
        content = message["content"]
        for part in [{"type": "text", "text": content}] if isinstance(content, str) else content:
            if part["type"] == "text":
                total += len(part["text"]) // 4
            else:
                with Image.open(
                    io.BytesIO(base64.b64decode(part["image_url"]["url"].partition(",")[2]))
                ) as image:
                    total += max(1, round(image.width / 32)) * max(1, round(image.height / 32)) + 2
    return total


def fill(schema: dict[str, Any], rng: random.Random) -> Any:
    """A value that is valid for a JSON schema as our questions have them."""
    if "const" in schema:
        return schema["const"]
    if "enum" in schema:
        return rng.choice(schema["enum"])
    if "anyOf" in schema:
        return fill(rng.choice(schema["anyOf"]), rng)
    match schema["type"]:
        case "object":
            return {name: fill(part, rng) for name, part in schema["properties"].items()}
        case "array":
            min_items = schema.get("minItems", 0)
            length = rng.randint(
                min_items, min(schema.get("maxItems", min_items + 4), min_items + 4)
            )
            return [fill(schema["items"], rng) for _ in range(length)]
        case "string":
            return " ".join(rng.choice(WORDS) for _ in range(rng.randint(1, 4)))[
                : schema.get("maxLength", 40)
            ].strip()
        case "integer":
            return rng.randint(schema["minimum"], schema["maximum"])
        case "number":
            return round(rng.uniform(schema["minimum"], schema["maximum"]), 3)
        case _:
            return rng.random() < 0.5


def even(properties: dict[str, Any], value: dict[str, Any]) -> dict[str, Any]:
    """The answer of a model that sees the same three steps of unlike lengths in every run."""
    if "steps" in properties:
        return value | {"steps": [{"verb": "Move", "object": f"thing {k}"} for k in range(3)]}
    if "changes" in properties:
        pictures = properties["changes"]["items"]["properties"]["picture"]["enum"]
        activities = [{"label": str(k + 1), "outcome": "achieved"} for k in range(3)]
        changes = [
            {"picture": pictures[round(position * (len(pictures) - 1))]} | activities[k]
            for k, position in ((1, 0.25), (2, 0.55))
        ]
        return value | {"first": activities[0], "changes": changes}
    if "picture" in properties:
        return value | {
            "picture": properties["picture"]["enum"][len(properties["picture"]["enum"]) // 2]
        }
    return {k: v | {"completed": True} if isinstance(v, dict) else v for k, v in value.items()}
