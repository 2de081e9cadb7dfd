"""Tiny checkpoints in the layouts that others publish."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from safetensors.torch import save_file
from transformers import GenerationConfig

from core.paths import ROOT
from training.backbones import add_adapter, make_backbone, make_processor, make_tokenizer
from training.model import Head, ProgressModel, make_head, save_model, save_processor
from training.pictures import Item
from training.published import PUBLISHED_HEAD
from training.recipe import LoraConfig, TinyConfig
from training.transform import Transform

HIDDEN = 128  # four heads of 32: vLLM on CPU knows none of 16
SIZES = {"hidden": HIDDEN, "layers": 2, "vision_hidden": 64, "vision_layers": 2}
TEXTS = ("How far is the task? Pick up the red block.", "<progress>12.34%</progress>")


def tiny(family: Literal["qwen3_vl", "qwen2_5_vl"] = "qwen3_vl", seed: int = 0) -> tuple[Any, Any]:
    """(backbone, processor)"""
    config = TinyConfig(family=family, vocabulary=320, max_px=64, **SIZES)
    tokenizer = make_tokenizer(TEXTS, config.vocabulary)
    return make_backbone(tokenizer, config, seed), make_processor(tokenizer, config)


def write_asked(folder: Path) -> Path:
    """A model that a server answers with: its words mean nothing, prompts of the annotator are
    short."""
    config = TinyConfig(vocabulary=600, max_px=512, **SIZES)
    prompts = (ROOT / "annotate" / "vlm" / "prompts").glob("*.txt")
    tokenizer = make_tokenizer([path.read_text() for path in prompts], config.vocabulary)
    backbone = make_backbone(
        tokenizer, config, seed=2
    )  # one that divides runs, so that every stage is asked for
    backbone.generation_config = GenerationConfig(
        eos_token_id=tokenizer.eos_token_id, do_sample=False
    )
    processor = make_processor(tokenizer, config)
    backbone.save_pretrained(folder)
    for part in (
        processor,
        processor.image_processor,
    ):  # each in a file of its own, as published models have it
        part.save_pretrained(folder)
    return folder


def published_head() -> Head:
    torch.manual_seed(1)
    return make_head(PUBLISHED_HEAD, HIDDEN).eval()


def head_weights(head: Head, prefix: str = "") -> dict[str, torch.Tensor]:
    """With the names that ProcVLM gives them."""
    return {
        prefix + k.replace("pooler.", "pooler.score."): v.clone()
        for k, v in head.state_dict().items()
    }


def all_weights(backbone: Any) -> dict[str, torch.Tensor]:
    """As a pickle has them: what is shared stands there twice."""
    return {k: v.clone() for k, v in backbone.state_dict().items()}


def write_plain(folder: Path, backbone: Any, processor: Any) -> Path:
    """Everything of a published folder but the weights."""
    folder.mkdir(parents=True)
    backbone.config.save_pretrained(folder)
    save_processor(processor, folder)
    return folder


def write_sharded(folder: Path, weights: dict[str, torch.Tensor]) -> None:
    names = sorted(weights)
    placed = {
        k: f"pytorch_model-0000{1 + (i >= len(names) // 2)}-of-00002.bin"
        for i, k in enumerate(names)
    }
    for file in set(placed.values()):
        torch.save({k: v for k, v in weights.items() if placed[k] == file}, folder / file)
    (folder / "pytorch_model.bin.index.json").write_text(
        json.dumps({"metadata": {}, "weight_map": placed})
    )


def write_safetensors(folder: Path, weights: dict[str, torch.Tensor]) -> None:
    save_file(
        {k: v.contiguous() for k, v in weights.items()},
        folder / "model.safetensors",
        {"format": "pt"},
    )


def write_adapter(
    models: Path, names: Sequence[str] = ("run",), family: Any = "qwen3_vl", **card: Any
) -> Path:
    """models/base without a head, and adapters of it with one each; the folder of the first."""
    backbone, processor = tiny(family)
    base = models / "base"
    save_model(ProgressModel(backbone, None), processor, base, {"head": None})
    backbone.name_or_path = str(base)
    add_adapter(backbone, LoraConfig(rank=4, alpha=8))
    torch.manual_seed(3)
    for name, parameter in backbone.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.1)
    for name in names:
        save_model(
            ProgressModel(backbone, published_head()),
            processor,
            models / name,
            {"base": str(base)} | card,
        )
    return models / names[0]


@torch.inference_mode()
def answers(model: ProgressModel, processor: Any) -> tuple[torch.Tensor, torch.Tensor]:
    """(progress [2], logits) on two made-up questions."""
    rng = np.random.default_rng(0)
    pictures = tuple(rng.integers(0, 255, (64, 64, 3), np.uint8) for _ in range(2))
    items = [Item(f"<image>{TEXTS[0]}", (p,), TEXTS[1], 0.5) for p in pictures]
    output = model.eval()(Transform(processor)(items), with_text=True)
    assert output.logits is not None
    return output.progress, output.logits
