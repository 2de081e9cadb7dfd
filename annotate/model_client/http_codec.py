"""Chat completions on the wire: the body of a request, and what a reply must be to be believed."""

import base64
import hashlib
import json
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, TypeGuard

from jsonschema import Draft202012Validator

from annotate.model_client.calls import Image, Request, VlmError

CACHED_BYTES = 128 << 20  # of encoded pictures: the stages of an episode send the same ones
URL = b'{"type":"image_url","image_url":{"url":"data:image/%s;base64,'
PNG = b"\x89PNG"
MAX_TOKENS = 1 << 40  # a server that tells more is not believed; the ledger's sums stay within 64 bits


class BadReplyError(Exception):
    """A reply that nothing may be labelled from: why, and what it cost."""

    def __init__(self, why: str, usage: tuple[int, int] | None = None):
        super().__init__(why)
        self.usage = usage


@dataclass(frozen=True)
class Completion:
    text: str
    value: dict[str, Any]
    model: str
    usage: tuple[int, int] | None  # prompt and completion tokens; None: the server does not tell


class Encoder:
    """Bodies of requests. A picture is encoded once as long as it is in use."""

    def __init__(self) -> None:
        self._pictures: OrderedDict[str, bytes] = OrderedDict()
        self._bytes = 0

    def body(self, request: Request, model: str, sampling: Mapping[str, Any]) -> bytes:
        """The JSON of a request. Written in pieces, since a picture's base64 is most of it and is to be copied once."""
        system = json.dumps({"role": "system", "content": request.system}) + "," if request.system else ""
        pieces = [f'{{"model":{json.dumps(model)},"messages":[{system}{{"role":"user","content":['.encode()]
        for n, part in enumerate(request.content):
            pieces.append(b"," if n else b"")
            pieces += self._part(part)

        # The fields after the messages: those of the sampling, then the schema of the reply
        options = {**sampling, **request.extra}
        if request.schema is not None:
            schema = {"name": request.stage, "strict": True, "schema": request.schema}
            options["response_format"] = {"type": "json_schema", "json_schema": schema}
        pieces += (b"]}],", json.dumps(options).encode()[1:])
        return b"".join(pieces)  # the pictures are copied this once

    def _part(self, part: str | Image) -> Sequence[bytes]:
        """A text or a picture of the user message, in pieces."""
        if not isinstance(part, Image):
            return (json.dumps({"type": "text", "text": part}).encode(),)
        kind = b"png" if part.jpeg.startswith(PNG) else b"jpeg"
        return (URL % kind, self._picture(part), b'"}}')

    def _picture(self, image: Image) -> bytes:
        data = self._pictures.get(image.sha256)
        if data is not None:
            self._pictures.move_to_end(image.sha256)
            return data
        # A key holds the picture's hash: other bytes would store an answer about another picture under it
        if hashlib.sha256(image.jpeg).hexdigest() != image.sha256:
            raise VlmError("refused", f"keyframe {image.sha256[:12]} is damaged: its bytes are not those of its sha256")
        data = self._pictures[image.sha256] = base64.b64encode(image.jpeg)
        self._bytes += len(data)
        # Those that were not used for the longest time go first, never the one just made
        while self._bytes > CACHED_BYTES and len(self._pictures) > 1:
            self._bytes -= len(self._pictures.popitem(last=False)[1])
        return data


def completion(body: bytes, request: Request, names: set[str]) -> Completion:
    """The reply in the body of an answer. `names`: what the server may call the model.

    Raises BadReplyError, and VlmError when another model answered.
    """
    try:
        answer = json.loads(body)
    except (ValueError, RecursionError):
        raise BadReplyError(f"the answer is no JSON: {shown(body.decode(errors='replace'))}") from None
    # The cost first: a bad reply is paid for as well
    usage = tokens(answer.get("usage")) if isinstance(answer, dict) else None
    try:
        choice, model = answer["choices"][0], answer["model"]
        text, finish = choice["message"]["content"], choice.get("finish_reason")
    except (KeyError, IndexError, TypeError, AttributeError):
        raise BadReplyError(
            f"the answer is no chat completion: {shown(body.decode(errors='replace'))}", usage
        ) from None
    if model not in names:
        raise VlmError(
            "wrong_model",
            f"{shown(str(model), 80)} answered in place of {' or '.join(sorted(names))}: serve the configured model, "
            "or configure the served one",
        )
    # Without a schema any text is a reply, also none and one that is cut off
    if request.schema is None:
        text = text if isinstance(text, str) else ""
        return Completion(text, {"text": text, "finish": finish, **first_token(choice)}, model, usage)
    if finish == "length":
        raise BadReplyError(f"the reply is cut off at {request.max_tokens} tokens (max_tokens)", usage)
    try:
        # Once more with its cost, which `_valid_value` does not know
        value = _valid_value(text, request.schema)
    except BadReplyError as e:
        raise BadReplyError(str(e), usage) from None
    return Completion(text, value, model, usage)


def _valid_value(text: object, schema: Mapping[str, Any]) -> dict[str, Any]:
    """The object that a reply writes, valid for its schema. Raises BadReplyError, which does not know the cost."""
    if not isinstance(text, str) or not text.strip():
        raise BadReplyError("the reply is empty")
    try:
        value = json.loads(text, parse_constant=refuse_constant)
    except (ValueError, RecursionError):
        hint = "does the server honour response_format?"
        raise BadReplyError(f"the reply is no JSON ({hint}): {shown(text)}") from None
    problem = schema_problem(value, schema)
    if problem:
        raise BadReplyError(f"the reply breaks the schema: {problem}")
    if not isinstance(value, dict):
        raise BadReplyError(f"the reply is no JSON object: {shown(text)}")
    return value


def first_token(choice: Mapping[str, Any]) -> dict[str, Any]:
    """The likeliest first tokens of a reply with their log-probabilities, as a field of a value; empty without them."""
    try:
        likeliest = choice["logprobs"]["content"][0]["top_logprobs"]
        return {"first_token": [[str(t["token"]), float(t["logprob"])] for t in likeliest]}
    except (KeyError, IndexError, TypeError, ValueError):
        return {}


def schema_problem(value: Any, schema: Mapping[str, Any] | None) -> str | None:
    """The first thing that is wrong with a value, in a line; None without a schema."""
    if schema is None:
        return None
    error = next(validator(json.dumps(schema)).iter_errors(value), None)
    return None if error is None else shown(f"{error.json_path}: {error.message}")


@lru_cache(maxsize=512)
def validator(schema: str) -> Draft202012Validator:
    return Draft202012Validator(json.loads(schema))


def refuse_constant(name: str) -> float:
    raise ValueError(f"{name} is no JSON")


def tokens(usage: Any) -> tuple[int, int] | None:
    """Prompt and completion tokens as a server tells them; None where it does not."""
    if not isinstance(usage, dict):
        return None
    prompt, completion = usage.get("prompt_tokens"), usage.get("completion_tokens")
    if _is_count(prompt) and _is_count(completion):
        return prompt, completion
    return None


def _is_count(value: object) -> TypeGuard[int]:
    return isinstance(value, int) and 0 <= value < MAX_TOKENS


def shown(text: str, chars: int = 200) -> str:
    """As one line of bounded length, for a message."""
    line = " ".join(text[: 4 * chars].split())
    return line if len(line) <= chars else line[: chars - 3] + "..."
