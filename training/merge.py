"""Adapters merged into the models that they were made for: checkpoints that need nothing else, for servers."""

import hashlib
from pathlib import Path
from typing import Any

from core.files import sha256_file, whole_folder
from training.backbones import ADAPTER_FILE, load_backbone, load_processor
from training.errors import ModelError
from training.folder import ADAPTER_CONFIG, base_of, read_card
from training.model import ProgressModel, load_head, save_model

MERGED = ".merged"


def weights_hash(folder: Path) -> str:
    """One hash over the weight files of a checkpoint: their names and contents."""
    lines = [f"{p.name} {sha256_file(p)}" for p in sorted(folder.glob("*.safetensors"))]
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def merge(folder: Path, out: Path) -> dict[str, Any]:
    """Write the adapter's checkpoint as a whole model, in its base's precision; returns its card. Raises ModelError.

    The card is the adapter's, with the names and hashes of adapter and base.
    """
    base = base_of(folder)
    if base is None:
        raise ModelError(f"{folder} is no adapter: it has no {ADAPTER_CONFIG}")
    if not (folder / ADAPTER_FILE).exists():
        raise ModelError(f"the adapter {folder} lacks {ADAPTER_FILE}")
    import peft

    card = read_card(folder)
    head = load_head(folder, card)
    backbone = load_backbone(base)
    kept = backbone.dtype
    try:
        adapted = peft.PeftModel.from_pretrained(backbone, str(folder), local_files_only=True)
        whole: Any = adapted.merge_and_unload(safe_merge=True)  # type: ignore[operator]
    except (OSError, ValueError, KeyError, RuntimeError, TypeError) as e:
        raise ModelError(f"the adapter {folder} cannot be merged: {' '.join(str(e).split())[:300]}") from e
    model = ProgressModel(whole.to(kept), head)
    card = {k: v for k, v in card.items() if k != "base"} | {
        "parameters": sum(p.numel() for p in model.parameters()),
        "merged": {
            "adapter": folder.name,
            "adapter_sha256": weights_hash(folder),
            "base": base.name,
            "base_sha256": weights_hash(base),
        },
    }
    with whole_folder(out) as half:
        save_model(model, load_processor(folder), half, card)
    return card
