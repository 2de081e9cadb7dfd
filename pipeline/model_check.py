"""A checkpoint merged into a whole model, and tried: in transformers, and by vLLM as well. Imports torch."""

import base64
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import httpx
import numpy as np
import torch

from annotate.model_client.server import Server, ServerConfig
from annotate.pictures import encode_jpeg
from core.errors import FailedError
from core.logs import end_of, last_lines
from core.paths import Workspace
from core.tables import TABLES
from core.values import IMAGE_MARK
from pipeline.models import models_folder
from training.folder import ModelError, adapters, base_of, is_laptop
from training.laptop.model import SeenWindow, embed, load_laptop, read_windows
from training.model import load_model
from training.pictures import Item
from training.published import MERGED, merge
from training.transform import Transform
from warehouse.lake import open_lake

QUESTION = f"How far is the task? {IMAGE_MARK}"
SIDE_PX = 64  # of the picture that a checkpoint is tried on
GREY = np.full((SIDE_PX, SIDE_PX, 3), 127, np.uint8)
ANSWER_TOKENS = 16
TRIED_LENGTH = 2048  # tokens
ANSWER_S = 300.0


def unmerged(space: Workspace) -> list[Path]:
    """The adapters of a workspace that no merged model is beside."""
    return [f for f in adapters(models_folder(space)) if not f.with_name(f.name + MERGED).exists()]


def merge_adapter(space: Workspace, folder: Path, out: Path | None) -> dict[str, Any]:
    """Merge one adapter, and record the model if it is of the workspace. Raises ModelError."""
    merged_folder = out or folder.with_name(folder.name + MERGED)
    card = merge(folder, merged_folder)
    if merged_folder.parent.resolve() == models_folder(space).resolve():
        row = {
            "training_run": merged_folder.name,
            "step": card.get("final", {}).get("step", -1) + 1,
            "path": merged_folder.resolve().relative_to(space.root).as_posix(),
            "created_at": datetime.now(UTC),
        }
        open_lake(space).upsert(
            f"merged model {merged_folder.name}", checkpoints=TABLES["checkpoints"].rows([row])
        )
    merged = card["merged"]
    return {
        "model": str(merged_folder),
        "adapter": merged["adapter"],
        "base": merged["base"],
        "parameters": card["parameters"],
    }


def check_model(folder: Path, on_message: Callable[[str], None] | None) -> dict[str, Any]:
    """Ask a checkpoint about a grey picture; with `on_message` vLLM asks it, too. Raises ModelError or FailedError."""
    if on_message and is_laptop(folder):
        raise ModelError(
            f"{folder.name} is a laptop model: vLLM cannot serve it, proccorpus serve does"
        )
    # Refused before anything is loaded, which may take minutes
    if on_message and base_of(folder):
        raise ModelError(
            f"{folder.name} is an adapter: a server needs a whole model, so merge it first (model merge)"
        )
    facts = _check_laptop(folder) if is_laptop(folder) else _check_whole(folder)
    if on_message:
        return facts | {"served_answer": _served_answer(folder, GREY, on_message)}
    return facts


def _check_whole(folder: Path) -> dict[str, Any]:
    model, processor, _ = load_model(folder)
    with torch.inference_mode():
        output = model(Transform(processor)([Item(QUESTION, (GREY,), "0%")]), with_text=True)
    # Broken weights still load; they show in what comes out
    if output.logits is None or not torch.isfinite(output.logits).all():
        raise ModelError(f"{folder} answers with NaN or infinite numbers: its weights are broken")
    progress = round(float(output.progress[0]), 4) if model.head else None
    return {
        "model": folder.name,
        "parameters": sum(p.numel() for p in model.parameters()),
        "progress": progress,
    }


def _check_laptop(folder: Path) -> dict[str, Any]:
    """Raises ModelError, EncoderError."""
    model, encoder, _ = load_laptop(folder)
    embedded_pictures = list(embed(encoder, [GREY]))
    [answer] = read_windows(model, [SeenWindow("grey", embedded_pictures)])
    if not np.isfinite(answer.progress):
        raise ModelError(f"{folder} answers with NaN or infinite numbers: its weights are broken")
    parameters = sum(p.numel() for p in model.parameters())
    return {"model": folder.name, "parameters": parameters, "progress": round(answer.progress, 4)}


def _served_answer(folder: Path, picture: Any, on_message: Callable[[str], None]) -> str:
    jpeg = base64.b64encode(encode_jpeg(picture, SIDE_PX)[0]).decode()
    content = [
        {"type": "image_url", "image_url": {"url": f"data:image/jpeg;base64,{jpeg}"}},
        {"type": "text", "text": QUESTION.replace(IMAGE_MARK, "").strip()},
    ]
    body = {
        "model": folder.name,
        "max_tokens": ANSWER_TOKENS,
        "messages": [{"role": "user", "content": content}],
    }
    with TemporaryDirectory(prefix="proccorpus-check-") as logs:
        config = ServerConfig(
            model=str(folder),
            served_name=folder.name,
            port=0,
            max_model_len=TRIED_LENGTH,
            max_images=1,
            max_num_seqs=1,
            cpu_kvcache_gib=1,
            log_dir=Path(logs),
        )
        with Server(config, on_message) as server:
            try:
                reply = httpx.post(
                    f"{server.endpoints[0]}/chat/completions",
                    json=body,
                    timeout=ANSWER_S,
                    trust_env=False,
                )
                return reply.raise_for_status().json()["choices"][0]["message"]["content"]
            except (httpx.HTTPError, KeyError, ValueError) as e:
                log = last_lines(end_of(server.logs[0]))
                raise FailedError(
                    f"vLLM serves {folder.name}, but does not answer: {e}; the end of its log:\n{log}"
                ) from e
