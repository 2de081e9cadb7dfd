"""Checkpoint folders: kinds of models, cards, hashes and errors. Loads no model and imports no torch."""

import hashlib
import json
from pathlib import Path
from typing import Any, NamedTuple

from core.errors import FailedError


class ModelError(FailedError):
    """A checkpoint that cannot be used: which folder, what is wrong."""


class TrainingError(FailedError):
    """A training run that cannot start or has gone wrong."""


CARD = "card.json"
CONFIG = "config.json"
ADAPTER_CONFIG = "adapter_config.json"
LAPTOP = "laptop"  # model_type of the kind of training.laptop


class Backbone(NamedTuple):
    """A kind of vision-language model. `model`, `processor`, `images`, `videos`: classes of transformers.

    tower: what sees pictures, by its name in the model; merger: what maps them to the language model, by its name
    free_size: pictures keep their shape and have places by time, height and width; else all have one size, and each
    token has one place
    state: layers that carry a state along a row, by their name; packed samples go through them in padded rows
    """

    model: str
    processor: str = "Qwen3VLProcessor"
    images: str = "Qwen2VLImageProcessor"
    videos: str = "Qwen3VLVideoProcessor"
    tower: str = "visual"
    merger: str = "merger"
    free_size: bool = True
    state: str | None = None


# By model_type of config.json. LoRA adapts linear layers of each one's `language_model`; the head reads its last states
BACKBONES = {
    "qwen3_vl": Backbone("Qwen3VLForConditionalGeneration"),
    "qwen3_vl_moe": Backbone("Qwen3VLMoeForConditionalGeneration"),
    "qwen2_5_vl": Backbone(
        "Qwen2_5_VLForConditionalGeneration",
        "Qwen2_5_VLProcessor",
        videos="Qwen2VLVideoProcessor",
    ),
    "qwen3_5": Backbone("Qwen3_5ForConditionalGeneration", state="linear_attn"),
    "qwen3_5_moe": Backbone("Qwen3_5MoeForConditionalGeneration", state="linear_attn"),
    "internvl": Backbone(
        "InternVLForConditionalGeneration",
        "InternVLProcessor",
        "GotOcr2ImageProcessor",
        "InternVLVideoProcessor",
        tower="vision_tower",
        merger="multi_modal_projector",
        free_size=False,
    ),
}


def backbone_kind(model: Any) -> Backbone:
    """Of a model in its transformers class."""
    return BACKBONES[model.config.model_type]


def write_card(folder: Path, card: dict[str, Any]) -> None:
    (folder / CARD).write_text(json.dumps(card, indent=1, sort_keys=True) + "\n")


def read_card(folder: Path) -> dict[str, Any]:
    """Raises ModelError."""
    try:
        return json.loads((folder / CARD).read_text())
    except FileNotFoundError as e:
        raise ModelError(f"{folder} is not a checkpoint of ours: {CARD} missing") from e
    except (OSError, ValueError) as e:
        raise ModelError(f"{folder / CARD} cannot be read: {e}") from e


def base_of(folder: Path) -> Path | None:
    """The checkpoint that an adapter's folder is for; None where the folder holds a whole model. Raises ModelError."""
    if not (folder / ADAPTER_CONFIG).exists():
        return None
    card = read_card(folder)
    if "base" not in card:
        raise ModelError(f"{folder} is an adapter, and its {CARD} does not say of what")
    return models_of(folder) / card["base"]


def models_of(folder: Path) -> Path:
    """The folder of all models: that of a run, or of a run's steps."""
    if folder.parent.suffix == ".steps":
        return folder.parent.parent
    return folder.parent


def is_laptop(folder: Path) -> bool:
    """Does a checkpoint's config.json say that it is of this kind? A folder without one, or damaged, is not."""
    try:
        return json.loads((folder / CONFIG).read_text())["model_type"] == LAPTOP
    except (OSError, ValueError, KeyError, TypeError):
        return False


def folder_hash(folder: Path) -> str:
    """First 16 hex of a sha256 over a checkpoint's weights and configuration, an adapter's base included."""
    h = hashlib.sha256()
    if base := base_of(folder):
        h.update(folder_hash(base).encode())
    for path in sorted(
        p for p in folder.iterdir() if p.suffix == ".safetensors" or p.name == "config.json"
    ):
        with path.open("rb") as f:
            h.update(path.name.encode() + b"\0" + hashlib.file_digest(f, "sha256").digest())
    return h.hexdigest()[:16]


def checkpoints(models: Path) -> list[Path]:
    """The checkpoints of a folder of models, by name; half-written ones bear other names."""
    return sorted(p.parent for p in models.glob(f"*/{CARD}") if not p.parent.name.startswith("."))


def adapters(models: Path) -> list[Path]:
    return [p for p in checkpoints(models) if (p / ADAPTER_CONFIG).exists()]
