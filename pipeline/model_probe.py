"""One small question to a server, as builds ask it: what the server takes, and how it answers."""

import asyncio
import io
import time
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from PIL import Image as Pillow

from annotate.config import VlmConfig
from annotate.model_client.calls import Image, Request
from annotate.model_client.reading import THOUGHT, reply_form
from annotate.model_client.responses import ResponseStore

SIDE_PX = 64
COLOURS = ("red", "green", "blue")
SHOWN = "green"
SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {
        "seen": {
            "type": "string",
            "pattern": r"^[!#-\[\]-~][ !#-\[\]-~]{0,99}$",
            "description": THOUGHT,
        },
        "colour": {"type": "string", "enum": list(COLOURS)},
    },
    "required": ["seen", "colour"],
    "additionalProperties": False,
}
MAX_TOKENS = 200


def client_for(config: VlmConfig, store: ResponseStore, **caller: str) -> Any:
    """A client, imported when it is needed: it is slow to import, and other annotators need none."""
    from annotate.model_client.client import Client

    return Client(config, store, **caller)


def probe(config: VlmConfig) -> dict[str, Any]:
    """What a server takes and says of a green picture. Raises VlmError. Nothing is kept."""
    data = io.BytesIO()
    Pillow.new("RGB", (SIDE_PX, SIDE_PX), SHOWN).save(data, "JPEG")
    question = f"Of which colour is the picture?\nThe form of the answer:\n{reply_form(SCHEMA)}"
    content = (Image.of(data.getvalue()), question)
    request = Request(
        "probe",
        "",
        content,
        SCHEMA,
        MAX_TOKENS,
        config.temperature,
        config.seed,
        extra=config.extra_body,
    )
    with TemporaryDirectory(prefix="proccorpus-probe-") as folder:
        return asyncio.run(_asked(config, request, ResponseStore(Path(folder))))


async def _asked(config: VlmConfig, request: Request, store: ResponseStore) -> dict[str, Any]:
    start_s = time.monotonic()
    async with client_for(
        config, store, build_id="", dataset="", label_run="", prompt_version=""
    ) as client:
        reply = await client.ask(request, 0)
    [call] = store.calls("")
    if reply.value["colour"] == SHOWN:
        sees = "yes"
    else:
        sees = f"no: it calls a {SHOWN} picture {reply.value['colour']}"
    store.close()
    return {
        "model": config.model,
        **client.profile.facts(),
        "sees_pictures": sees,
        "prompt_tokens": call["prompt_tokens"],
        "completion_tokens": call["completion_tokens"],
        "tokens_doubted": call["error"] or "",
        "seconds": round(time.monotonic() - start_s, 2),
    }
