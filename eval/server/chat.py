"""Rewards in the shape of OpenAI's chat completions: a request's pictures are one run up to now, the oldest first.

The answer's content is JSON with `progress`, `success`, `confidence` and `model`; nothing is generated. RLinf's reward
parsers know no progress, but a trend from a window's first picture to its last, or a digit: `reply` asks for either.
"""

import base64
import binascii
import json
import re
import time
from collections.abc import Iterator, Sequence
from itertools import chain
from typing import Annotated, Any, Literal
from uuid import uuid4

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from eval.reward.scorer import Reward
from eval.reward.stream import ViewRule
from eval.server.limits import Refused, first_problem
from eval.server.protocol import MAX_TASK, Cameras, Fps, RewardRow, RobotRow, Steps

MAX_MESSAGES = 64
MAX_PARTS = 2000  # of one message
MAX_PROMPT = 8000  # characters in which a task is looked for
DATA_URL = re.compile(r"data:image/[\w.+-]+;base64,", re.ASCII)
# How prompts of others name the task: ProcVLM's, and those that RLinf makes for histories
QUOTED_TASK = re.compile(r'\btask "(?P<task>.+?)"(?=[,.:\s]|$)', re.DOTALL)
TOLD = (
    QUOTED_TASK,
    re.compile(r"\A\s*Task: (?P<task>[^\n]+?)\.?\s*\n"),
    re.compile(
        r"\bperforming the task: (?P<task>.+?)\. (?:Please|The first video|You are given)\b",
        re.DOTALL,
    ),
)
Reply = Literal["reward", "trend", "digit"]


class Lenient(BaseModel):
    """Clients send fields of their own time: those that are not known are left aside."""

    model_config = ConfigDict(extra="ignore", frozen=True)


class ImageUrl(Lenient):
    url: str


class TextPart(Lenient):
    type: Literal["text"]
    text: str = Field(max_length=100_000)


class ImagePart(Lenient):
    type: Literal["image_url"]
    image_url: ImageUrl


Part = Annotated[TextPart | ImagePart, Field(discriminator="type")]


class Message(Lenient):
    role: Literal["system", "developer", "user", "assistant"]
    content: str | Annotated[list[Part], Field(max_length=MAX_PARTS)] | None = None


class RunOptions(BaseModel):
    """What a chat cannot say of a run, under `proccorpus` in the body (the `openai` package: `extra_body`)."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    fps: Fps | None = None  # None: pictures lie as far apart as the model was trained on
    cameras: Cameras = ["camera"]
    order: Annotated[
        Literal["moment", "camera"],
        Field(
            description="Of pictures of several cameras: moment by moment, or one camera after another."
        ),
    ] = "moment"
    views: Annotated[ViewRule, Field(description="How several cameras are judged together.")] = (
        "all"
    )
    steps: Steps = ()
    reply: Annotated[
        Reply,
        Field(
            description="trend: positive, negative or unclear, too, from the first picture to the last; digit: 1 or 0."
        ),
    ] = "reward"
    session: Annotated[
        str | None,
        Field(
            max_length=64,
            description="An open session: the pictures are its next ones, and the last counts.",
        ),
    ] = None
    margin: Annotated[float, Field(ge=0, le=1, description="Progress that makes a trend.")] = 0.01
    robots: Annotated[
        list[RobotRow] | None, Field(description="The robot at each moment, for shown runs.")
    ] = None


DEFAULTS = RunOptions()


class ChatRequest(Lenient):
    """What is read of a chat completion's request."""

    model: str
    messages: list[Message] = Field(min_length=1, max_length=MAX_MESSAGES)
    stream: bool | None = False
    n: int | None = 1
    proccorpus: RunOptions = DEFAULTS


# FastAPI reads no body of this shape by itself: it would read it on the event loop
BODY = {
    "requestBody": {
        "required": True,
        "content": {"application/json": {"schema": ChatRequest.model_json_schema()}},
    }
}


def read_request(body: bytes) -> ChatRequest:
    """Raises Refused (400) naming the field."""
    try:
        return ChatRequest.model_validate_json(body)
    except ValidationError as e:
        field, message = first_problem(e.errors(include_url=False, include_input=False))
        raise Refused(400, "invalid_value", message, param=field or None) from e


def check_model(model: str, names: list[str]) -> None:
    """By a name that it has here, or the last part of one, as clients make names of paths. Raises Refused (404)."""
    if model not in {*names, *(name.rstrip("/").rpartition("/")[2] for name in names)}:
        raise Refused(
            404,
            "model_not_found",
            f"the model {model!r} is not served here, {names[0]!r} is",
            param="model",
        )


def pictures_of(request: ChatRequest) -> list[bytes]:
    """The run's pictures as files, moment by moment. Raises Refused (400)."""
    urls = []
    for message in request.messages:
        if message.role == "user" and isinstance(message.content, list):
            urls += [part.image_url.url for part in message.content if isinstance(part, ImagePart)]
    data = [_decoded(url, f"picture {i}") for i, url in enumerate(urls)]
    if not data:
        message_text = "no message of the user has a picture: send some as image_url"
        raise Refused(400, "no_picture", message_text, param="messages")
    cameras = len(request.proccorpus.cameras)
    if request.proccorpus.order == "moment" or len(data) % cameras:
        return data
    num_moments = len(data) // cameras
    by_moment = [data[moment::num_moments] for moment in range(num_moments)]
    return [*chain.from_iterable(by_moment)]


def _decoded(url: str, name: str) -> bytes:
    """Raises Refused (400)."""
    head = DATA_URL.match(url)
    if head is None:
        message = f"{name} is no data: URL with an image in base64; this server opens no address"
        raise Refused(400, "invalid_image_url", message, param="messages")
    try:
        return base64.b64decode(url[head.end() :], validate=True)
    except (binascii.Error, ValueError) as e:
        raise Refused(400, "invalid_base64", f"{name} is no base64 ({e})", param="messages") from e


def task_of(request: ChatRequest) -> str:
    """The task in words: the user's last text, or what a known prompt names in it. Raises Refused (400)."""
    texts = [_text(m) for m in request.messages if m.role == "user"]
    text = next((t for t in reversed(texts) if t), "")
    match = next((f for pattern in TOLD if (f := pattern.search(text[:MAX_PROMPT]))), None)
    text = match["task"].strip() if match else text
    if not 0 < len(text) <= MAX_TASK:
        message = f"the user's text is the task: 1 to {MAX_TASK} characters, not {len(text)}"
        raise Refused(400, "task", message, param="messages")
    return text


def _text(message: Message) -> str:
    if isinstance(message.content, str):
        return message.content.strip()
    return "\n".join(p.text for p in message.content or () if isinstance(p, TextPart)).strip()


def content_of(
    reward: Reward | RewardRow,
    model: str,
    run: RunOptions = DEFAULTS,
    first: Reward | RewardRow | None = None,
) -> str:
    """The reward as JSON; as `run.reply` asks, with the trend since `first`, or the digit of success alone.

    `confidence`: the calibrated probability that `success` is right; null where the model was not calibrated. A digit
    that is not known is an empty text.
    """
    probability = reward.done
    success = reward.success
    if run.reply == "digit":
        if success is None:
            return ""
        return str(int(success))
    if success is None or probability is None:
        confidence = None
    elif success:
        confidence = probability
    else:
        confidence = 1 - probability
    fields: dict[str, Any] = {
        "progress": reward.progress,
        "success": success,
        "confidence": confidence,
        "model": model,
        "unsure": reward.unsure,
    }
    # What shown runs tell beside; of other rewards nothing
    names = ("step", "step_name", "spread") if reward.source == "shown" else ()
    fields |= {name: getattr(reward, name) for name in names}
    if run.reply == "trend":
        fields |= _trend(reward.progress, None if first is None else first.progress, run.margin)
    return json.dumps(fields)


def _trend(current: float | None, first: float | None, margin: float) -> dict[str, Any]:
    if current is None or first is None:
        return {"trend": None, "change": None}
    change = current - first
    return {
        "trend": "unclear" if abs(change) <= margin else "positive" if change > 0 else "negative",
        "change": change,
    }


def completion(
    reward: Reward | RewardRow,
    model: str,
    run: RunOptions = DEFAULTS,
    first: Reward | RewardRow | None = None,
) -> dict[str, Any]:
    """A chat completion. Where there is no number, its content has nulls and `refusal` says why. `first`: the reward
    of the first moment, which a trend is told from.
    """
    failure = reward.failure or (first.failure if first else None)
    message = {
        "role": "assistant",
        "content": content_of(reward, model, run, first),
        "refusal": failure,
    }
    about = {
        "id": f"chatcmpl-{uuid4().hex}",
        "object": "chat.completion",
        "created": int(time.time()),
        "model": model,
    }
    return about | {
        "choices": [{"index": 0, "message": message, "finish_reason": "stop", "logprobs": None}],
        "proccorpus": {
            "source": reward.source,
            "unsure": reward.unsure,
            "views": run.views,
            "cameras": dict(reward.cameras or {}) or None,
        },
    }


def chunks(whole: dict[str, Any]) -> Iterator[str]:
    """The same as server-sent events: all of the content, then the end."""
    head = {k: whole[k] for k in ("id", "created", "model")} | {"object": "chat.completion.chunk"}
    deltas: Sequence[tuple[dict[str, Any], str | None]] = (
        ({k: v for k, v in whole["choices"][0]["message"].items() if v is not None}, None),
        ({}, "stop"),
    )
    for delta, reason in deltas:
        choice = {"index": 0, "delta": delta, "finish_reason": reason, "logprobs": None}
        yield f"data: {json.dumps(head | {'choices': [choice]})}\n\n"
    yield "data: [DONE]\n\n"


def model_list(names: list[str], since: int) -> dict[str, Any]:
    """What `/v1/models` says: one model, by each of its names."""
    same = {"object": "model", "created": since, "owned_by": "proccorpus"}
    return {"object": "list", "data": [{"id": name} | same for name in names]}
