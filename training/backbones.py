"""The vision-language models in their transformers classes: loaded, adapted, frozen, and divided into parts.

The class is chosen by what config.json says, never by a path. Nothing is unpickled, no remote code is run.
"""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import peft
import torch
import transformers
from safetensors import SafetensorError
from torch import nn
from transformers import AutoProcessor
from transformers.utils import logging

from training.attention import set_vision, text_attention
from training.folder import ModelError
from training.recipe import LoraConfig, TrainConfig

CLASSES = {
    "qwen3_vl": "Qwen3VLForConditionalGeneration",
    "qwen3_vl_moe": "Qwen3VLMoeForConditionalGeneration",
    "qwen2_5_vl": "Qwen2_5_VLForConditionalGeneration",
}
PICKLED = ("*.bin", "*.pt", "*.pth", "*.ckpt")
ADAPTER_FILE = "adapter_model.safetensors"


def read_config(folder: Path) -> dict[str, Any]:
    """config.json of a checkpoint that we have a class for. Raises ModelError."""
    if not folder.is_dir():
        raise ModelError(f"there is no checkpoint {folder}: give the folder of one that is on this machine")
    try:
        config = json.loads((folder / "config.json").read_text())
        kind = config["model_type"]
    except FileNotFoundError as e:
        raise ModelError(f"{folder} is not a checkpoint: it has no config.json") from e
    except (OSError, ValueError, KeyError, TypeError) as e:
        raise ModelError(f"{folder / 'config.json'} cannot be read: {e!r}") from e
    if kind not in CLASSES:
        raise ModelError(f"{folder} holds a model of the type {kind!r}; known: {', '.join(CLASSES)}")
    return config


def load_backbone(folder: Path, attention: str = "sdpa", **options: Any) -> Any:
    """A model in its transformers class, in the precision it is kept in unless `dtype` says another. ModelError."""
    logging.disable_progress_bar()  # one of ours is on the terminal already
    config = read_config(folder)
    # Pickled weights beside safetensors do no harm: they are never opened.
    if _pickles(folder) and not any(folder.glob("*.safetensors")):
        raise ModelError(_pickled(folder))
    try:
        backbone = getattr(transformers, CLASSES[config["model_type"]]).from_pretrained(
            folder,
            local_files_only=True,
            use_safetensors=True,
            trust_remote_code=False,
            attn_implementation=text_attention(attention),
            **options,
        )
    except (OSError, ValueError, KeyError, RuntimeError, ImportError, SafetensorError) as e:
        raise ModelError(f"the checkpoint {folder} cannot be loaded: {_short(e)}") from e
    set_vision(backbone, attention)
    return backbone


def empty_backbone(folder: Path, attention: str, dtype: torch.dtype) -> Any:
    """A checkpoint's model whose weights have any value: they are not read, another process gives them. ModelError."""
    backbone = sized_backbone(folder, dtype, text_attention(attention))
    # Memory that nobody writes to takes no room.
    backbone.to_empty(device="cpu")
    backbone.tie_weights()
    backbone.name_or_path = str(folder)
    set_vision(backbone, attention)
    return backbone


def sized_backbone(folder: Path, dtype: torch.dtype, attention: str = "sdpa") -> Any:
    """A model without weights, on the device `meta`, sized as a checkpoint's config.json says. Raises ModelError."""
    kind: Any = getattr(transformers, CLASSES[read_config(folder)["model_type"]])
    config = kind.config_class.from_pretrained(folder, local_files_only=True)
    with torch.device("meta"):
        return kind._from_config(config, dtype=dtype, attn_implementation=attention)


def load_processor(folder: Path, min_pixels: int | None = None, max_pixels: int | None = None) -> Any:
    """The processor of a checkpoint; areas of pictures other than its own may be given. Raises ModelError."""
    try:
        processor: Any = AutoProcessor.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    except (OSError, ValueError, KeyError, RuntimeError, ImportError) as e:
        raise ModelError(f"the processor of {folder} cannot be loaded: {_short(e)}") from e
    size = dict(processor.image_processor.size)
    wanted = {"shortest_edge": min_pixels, "longest_edge": max_pixels}  # areas, whatever they are called
    processor.image_processor.size = size | {k: v for k, v in wanted.items() if v is not None}
    return processor


def _pickles(folder: Path) -> list[str]:
    return sorted(p.name for pattern in PICKLED for p in folder.glob(pattern))


def _pickled(folder: Path) -> str:
    return (
        f"{folder} keeps its weights pickled ({_pickles(folder)[0]}), which may run code when they are loaded; "
        "make safetensors of them: proccorpus model convert"
    )


def _short(e: Exception) -> str:
    return " ".join(str(e).split())[:300]


# Adapters


def add_adapter(backbone: Any, config: LoraConfig) -> None:
    """LoRA on linear layers of the language model; all else is frozen. Raises ModelError where none is so named."""
    backbone.add_adapter(adapter_settings(backbone, config))
    # transformers makes adapters in the precision of their base; in bfloat16 most steps round to nothing.
    for parameter in backbone.parameters():
        if parameter.requires_grad and parameter.is_floating_point():
            parameter.data = parameter.data.float()


def adapter_settings(backbone: Any, config: LoraConfig) -> Any:
    """peft's own form of our settings. Raises ModelError."""
    modules = ((n, m) for n, m in backbone.named_modules() if "language_model." in n)
    linear = {n.rpartition(".")[2] for n, m in modules if isinstance(m, nn.Linear)}
    names = linear if config.targets == "all-linear" else set(config.targets)
    if unknown := sorted(names - linear):
        raise ModelError(f"lora.targets: no layer {unknown[0]!r}; the language model has {', '.join(sorted(linear))}")
    return peft.LoraConfig(
        r=config.rank,
        lora_alpha=config.alpha,  # type: ignore[arg-type]
        lora_dropout=config.dropout,
        # Bound to the language model: layers of the vision tower may bear the same names.
        target_modules=rf".*language_model\..*\.({'|'.join(sorted(map(re.escape, names)))})",
        base_model_name_or_path=str(backbone.name_or_path),
        task_type="CAUSAL_LM",
    )


def has_adapter(backbone: Any) -> bool:
    return bool(getattr(backbone, "peft_config", None))


def load_adapter(backbone: Any, folder: Path) -> None:
    """Put the adapter of a folder on the model that it was made for. Raises ModelError."""
    if not (folder / ADAPTER_FILE).exists():
        raise ModelError(_pickled(folder) if _pickles(folder) else f"the adapter {folder} lacks {ADAPTER_FILE}")
    try:
        backbone.load_adapter(str(folder))
    except (OSError, ValueError, KeyError, RuntimeError, TypeError) as e:
        raise ModelError(f"the adapter {folder} cannot be loaded: {_short(e)}") from e


# Parts


def part(name: str) -> str:
    """Which part a parameter of a ProgressModel is of, by its name: head, merger, vision or language."""
    if name.startswith("head."):
        return "head"
    if ".visual." in name:
        return "merger" if "merger" in name else "vision"
    return "language"


def rates(config: TrainConfig) -> dict[str, float]:
    """Learning rate by part; 0 is frozen."""
    own = {"merger": config.merger_lr, "vision": config.vision_lr, "head": config.head_lr, "language": None}
    return {name: config.lr if rate is None else rate for name, rate in own.items()}


def freeze(model: nn.Module, config: TrainConfig) -> None:
    """Parts with rate 0 learn nothing; what an adapter has frozen stays so."""
    by_part = rates(config)
    for name, parameter in model.named_parameters():
        if not by_part[part(name)]:
            parameter.requires_grad_(False)


def parameter_groups(model: nn.Module, config: TrainConfig) -> Iterator[dict[str, Any]]:
    """Groups for an optimizer, by part; vectors (norms, biases) do not decay."""
    for name, rate in rates(config).items():
        learning = [p for n, p in model.named_parameters() if p.requires_grad and part(n) == name]
        for decay, is_matrix in ((config.weight_decay, True), (0.0, False)):
            if some := [p for p in learning if (p.ndim >= 2) is is_matrix]:
                yield {"params": some, "lr": rate, "peak": rate, "part": name, "weight_decay": decay}
