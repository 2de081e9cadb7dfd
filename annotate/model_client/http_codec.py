"""Chat completions on the wire: the body of a request, and what a reply must be to be believed."""

import base64
import hashlib
import json
from collections.abc import Mapping
from typing import Any

from jsonschema import Draft202012Validator

from annotate.model_client.calls import Image, Request, VlmError
from core.errors import without_secrets

MAX_TOKENS = 1 << 40  # a server that tells more is not believed; the ledger's sums stay within 64 bits


class TryError(Exception):
    """A try without a usable reply, which another try may mend.

    kind: busy (the server has too much to do), unsent (no connection), failed, bad_reply (nothing may be labelled from
    it). Nobody has worked for the first two. weight: how many failures it counts as. after_s: how long the server asks
    to be left alone; None: it does not say.
    """

    def __init__(self, kind: str, why: str, *, weight: int = 1, after_s: float | None = None):
        super().__init__(why)
        self.kind, self.weight, self.after_s = kind, weight, after_s


def body_of(request: Request, model: str, sampling: Mapping[str, Any]) -> bytes:
    """The JSON of a request. Raises VlmError for a damaged picture."""
    content = [
        _picture(part) if isinstance(part, Image) else {"type": "text", "text": part} for part in request.content
    ]
    system = [{"role": "system", "content": request.system}] if request.system else []
    body = {"model": model, "messages": [*system, {"role": "user", "content": content}], **sampling, **request.extra}
    if request.schema is not None:
        schema = {"name": request.stage, "strict": True, "schema": request.schema}
        body["response_format"] = {"type": "json_schema", "json_schema": schema}
    return json.dumps(body).encode()


def _picture(image: Image) -> dict[str, Any]:
    # A key holds the picture's hash: other bytes would store an answer about another picture under it
    if hashlib.sha256(image.jpeg).hexdigest() != image.sha256:
        raise VlmError("refused", f"keyframe {image.sha256[:12]} is damaged: its bytes are not those of its sha256")
    kind = "png" if image.jpeg.startswith(b"\x89PNG") else "jpeg"
    data = base64.b64encode(image.jpeg).decode()
    return {"type": "image_url", "image_url": {"url": f"data:image/{kind};base64,{data}"}}


def parsed(body: bytes) -> dict[str, Any]:
    """The JSON object of an answer. Raises TryError."""
    try:
        answer = json.loads(body)
    except (ValueError, RecursionError):
        raise TryError("bad_reply", f"the answer is no JSON: {shown(body.decode(errors='replace'))}") from None
    if not isinstance(answer, dict):
        raise TryError("bad_reply", f"the answer is no chat completion: {shown(body.decode(errors='replace'))}")
    return answer


def usage_of(answer: Mapping[str, Any]) -> tuple[int, int] | None:
    """Prompt and completion tokens as a server tells them; None where it does not."""
    usage = answer.get("usage")
    told = [usage.get(f"{kind}_tokens") for kind in ("prompt", "completion")] if isinstance(usage, dict) else []
    counts = [n for n in told if isinstance(n, int) and 0 <= n < MAX_TOKENS]
    return (counts[0], counts[1]) if len(counts) == 2 else None


def completion(answer: Mapping[str, Any], request: Request, names: set[str]) -> dict[str, Any]:
    """The text, value and model of the reply in an answer. `names`: what the server may call the model.

    Raises TryError, and VlmError when another model answered.
    """
    try:
        choice, model = answer["choices"][0], answer["model"]
        content, finish = choice["message"]["content"], choice.get("finish_reason")
    except (KeyError, IndexError, TypeError, AttributeError):
        raise TryError("bad_reply", f"the answer is no chat completion: {shown(json.dumps(answer))}") from None
    if model not in names:
        who = f"{shown(str(model), 80)} answered in place of {' or '.join(sorted(names))}"
        raise VlmError("wrong_model", f"{who}: serve the configured model, or configure the served one")
    text = content if isinstance(content, str) else ""
    # Without a schema any text is a reply, also none and one that is cut off
    if request.schema is None:
        value = {"text": text, "finish": finish, **_first_token(choice)}
        return {"text": text, "value": value, "model": model}
    if finish == "length":
        raise TryError("bad_reply", f"the reply is cut off at {request.max_tokens} tokens (max_tokens)")
    if not text.strip():
        raise TryError("bad_reply", "the reply is empty")
    try:
        value = json.loads(text, parse_constant=_refuse_constant)
    except (ValueError, RecursionError):
        hint = "does the server honour response_format?"
        raise TryError("bad_reply", f"the reply is no JSON ({hint}): {shown(text)}") from None
    if problem := schema_problem(value, request.schema):
        raise TryError("bad_reply", f"the reply breaks the schema: {problem}")
    if not isinstance(value, dict):
        raise TryError("bad_reply", f"the reply is no JSON object: {shown(text)}")
    return {"text": text, "value": value, "model": model}


def _first_token(choice: Mapping[str, Any]) -> dict[str, Any]:
    """The likeliest first tokens of a reply with their log-probabilities, as a field of a value; empty without them."""
    try:
        likeliest = choice["logprobs"]["content"][0]["top_logprobs"]
        return {"first_token": [[str(t["token"]), float(t["logprob"])] for t in likeliest]}
    except (KeyError, IndexError, TypeError, ValueError):
        return {}


def _refuse_constant(name: str) -> float:
    raise ValueError(f"{name} is no JSON")


def schema_problem(value: Any, schema: Mapping[str, Any] | None) -> str | None:
    """The first thing that is wrong with a value, in a line; None without a schema."""
    error = None if schema is None else next(Draft202012Validator(schema).iter_errors(value), None)
    return None if error is None else shown(f"{error.json_path}: {error.message}")


def shown(text: str, chars: int = 200) -> str:
    """As one line of bounded length, for a message."""
    line = without_secrets(" ".join(text[: 4 * chars].split()))
    return line if len(line) <= chars else line[: chars - 3] + "..."
