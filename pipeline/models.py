"""The checkpoints of a workspace: found, merged, and tried, by vLLM as well."""

from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from core.logs import end_of, last_lines
from core.names import did_you_mean
from core.paths import Workspace
from core.values import IMAGE_MARK
from training.errors import ModelError
from training.folder import CARD, base_of, checkpoints, read_card

QUESTION = f"How far is the task? {IMAGE_MARK}"
SIDE_PX = 64  # of the picture that a checkpoint is tried on
ANSWER_TOKENS = 16
TRIED_LENGTH = 2048  # tokens
ANSWER_S = 300.0


def models_folder(space: Workspace) -> Path:
    return space.root / "models"


def model_folder(space: Workspace, model: str) -> Path:
    """The folder of a model of the workspace (`latest`, a recipe's name: the newest), or of a checkpoint anywhere.

    Raises ModelError, TrainingError.
    """
    # A recipe's name, or `latest`, is a training run's; a folder is not looked for in the lake
    if space.exists() and "/" not in model:
        from training.finished import named_model
        from warehouse.lake import Lake

        model = named_model(Lake(space, read_only=True), model)
    known = checkpoints(models_folder(space))
    for folder in known:
        if folder.name == model:
            return folder
    if (Path(model) / CARD).exists():
        return Path(model)
    names = [f.name for f in known]
    has = ", ".join(names) or "none yet (proccorpus train)"
    near = did_you_mean(model, names)
    raise ModelError(f"no model {model!r} and no checkpoint of ours there; the workspace has: {has}{near}")


def model_rows(space: Workspace) -> list[dict[str, Any]]:
    """What each checkpoint is, for people."""
    rows = []
    for folder in checkpoints(models_folder(space)):
        card, base = read_card(folder), base_of(folder)
        merged = card.get("merged", {})
        of = f"adapter of {base.name}" if base else f"{merged['adapter']} merged" if merged else "whole"
        head = card.get("head")
        rows.append(
            {
                "model": folder.name,
                "is": of,
                "head": head["pooling"] if head else "none",
                "release": card.get("release"),
                "parameters": card.get("parameters"),
                "bytes": sum(p.stat().st_size for p in folder.glob("*.safetensors")),
            }
        )
    return rows


def unmerged(space: Workspace) -> list[Path]:
    """The adapters of a workspace that no merged model is beside."""
    from training.folder import adapters
    from training.merge import MERGED

    return [f for f in adapters(models_folder(space)) if not f.with_name(f.name + MERGED).exists()]


def merge_adapter(space: Workspace, folder: Path, out: Path | None) -> dict[str, Any]:
    """Merge one adapter, and record the model if it is of the workspace. Raises ModelError."""
    from training.merge import MERGED, merge

    made = out or folder.with_name(folder.name + MERGED)
    card = merge(folder, made)
    if made.parent.resolve() == models_folder(space).resolve():
        row = {
            "training_run": made.name,
            "step": card.get("final", {}).get("step", -1) + 1,
            "path": made.resolve().relative_to(space.root).as_posix(),
            "created_at": datetime.now(UTC),
        }
        from core.tables import TABLES
        from warehouse.lake import open_lake

        open_lake(space).upsert(f"merged model {made.name}", checkpoints=TABLES["checkpoints"].rows([row]))
    merged = card["merged"]
    return {"model": str(made), "adapter": merged["adapter"], "base": merged["base"], "parameters": card["parameters"]}


def check_model(folder: Path, say: Callable[[str], None] | None) -> dict[str, Any]:
    """Ask a checkpoint about a grey picture, in transformers, and with `say` through vLLM too.

    Raises ModelError or FailedError.
    """
    import numpy as np
    import torch

    from training.laptop.kind import is_laptop
    from training.model import load_model
    from training.pictures import Item
    from training.transform import Transform

    if is_laptop(folder):
        if say:
            raise ModelError(f"{folder.name} is a laptop model: vLLM cannot serve it, proccorpus serve does")
        return _check_laptop(folder)
    # Refused before anything is loaded, which may take minutes
    if say and base_of(folder):
        raise ModelError(f"{folder.name} is an adapter: a server needs a whole model, so merge it first (model merge)")
    model, processor, _ = load_model(folder)
    grey = np.full((SIDE_PX, SIDE_PX, 3), 127, np.uint8)
    with torch.inference_mode():
        output = model(Transform(processor)([Item(QUESTION, (grey,), "0%")]), with_text=True)
    # Broken weights still load; they show in what comes out
    if output.logits is None or not torch.isfinite(output.logits).all():
        raise ModelError(f"{folder} answers with NaN or infinite numbers: its weights are broken")
    facts: dict[str, Any] = {"model": folder.name, "parameters": sum(p.numel() for p in model.parameters())}
    facts["progress"] = round(float(output.progress[0]), 4) if model.head else None
    if say:
        facts["served_answer"] = _served_answer(folder, grey, say)
    return facts


def _check_laptop(folder: Path) -> dict[str, Any]:
    """Raises ModelError, EncoderError."""
    import numpy as np

    from training.laptop.model import load_laptop
    from training.laptop.pictures import embed
    from training.laptop.reading import SeenWindow, read_windows

    model, encoder, _ = load_laptop(folder)
    seen = list(embed(encoder, [np.full((SIDE_PX, SIDE_PX, 3), 127, np.uint8)]))
    [answer] = read_windows(model, [SeenWindow("grey", seen)])
    if not np.isfinite(answer.progress):
        raise ModelError(f"{folder} answers with NaN or infinite numbers: its weights are broken")
    parameters = sum(p.numel() for p in model.parameters())
    return {"model": folder.name, "parameters": parameters, "progress": round(answer.progress, 4)}


def _served_answer(folder: Path, picture: Any, say: Callable[[str], None]) -> str:
    import base64

    import httpx

    from annotate.model_client.server import Server, ServerConfig
    from annotate.stored_pictures import encode_jpeg
    from core.errors import FailedError

    jpeg = base64.b64encode(encode_jpeg(picture, SIDE_PX)[0]).decode()
    content = [
        {"type": "image_url", "image_url": {"url": f"data:image/jpeg;base64,{jpeg}"}},
        {"type": "text", "text": QUESTION.replace(IMAGE_MARK, "").strip()},
    ]
    body = {"model": folder.name, "max_tokens": ANSWER_TOKENS, "messages": [{"role": "user", "content": content}]}
    with TemporaryDirectory(prefix="proccorpus-check-") as logs:
        config = ServerConfig(
            str(folder),
            served_name=folder.name,
            port=0,
            max_model_len=TRIED_LENGTH,
            max_images=1,
            max_num_seqs=1,
            cpu_kvcache_gib=1,
            log_dir=Path(logs),
        )
        with Server(config, say) as server:
            try:
                reply = httpx.post(
                    f"{server.endpoints[0]}/chat/completions", json=body, timeout=ANSWER_S, trust_env=False
                )
                return reply.raise_for_status().json()["choices"][0]["message"]["content"]
            except (httpx.HTTPError, KeyError, ValueError) as e:
                log = last_lines(end_of(server.logs[0]))
                raise FailedError(
                    f"vLLM serves {folder.name}, but does not answer: {e}; the end of its log:\n{log}"
                ) from e
