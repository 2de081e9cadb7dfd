"""Checkpoints of published models' sizes with random weights: what is measured on them is what the real ones take.

Sizes are those of the published config.json (training/sizes), ids of special tokens those of a small tokenizer.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from training.backbones import SPECIAL, make_processor, make_tokenizer
from training.plan import SIZES
from training.recipe import TinyConfig

VOCABULARY = 800  # of the tokenizer; the models' tables of embeddings keep their true size
WIDEST_PX = 4096


@dataclass(frozen=True)
class Shape:
    """A model's sizes; `family` as config.json's model_type."""

    family: str
    text: dict[str, Any]
    vision: dict[str, Any]
    tied: bool = True


def _published(file: Path) -> Shape:
    sizes = json.loads(file.read_text())
    return Shape(
        sizes["model_type"],
        sizes["text_config"],
        sizes["vision_config"],
        sizes["tie_word_embeddings"],
    )


SHAPES = {folder.name: _published(folder / "config.json") for folder in sorted(SIZES.iterdir())}
# Two layers, on a CPU
_large = SHAPES["Qwen3-VL-2B"]
_rotary = _large.text["rope_parameters"] | {"mrope_section": [4, 2, 2]}
SHAPES["tiny"] = Shape(
    _large.family,
    _large.text
    | {
        "hidden_size": 64,
        "intermediate_size": 128,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
    }
    | {"vocab_size": 832, "num_key_value_heads": 2, "head_dim": 16, "rope_parameters": _rotary},
    _large.vision
    | {
        "depth": 2,
        "hidden_size": 64,
        "intermediate_size": 128,
        "num_heads": 4,
        "out_hidden_size": 64,
    }
    | {"num_position_embeddings": 64, "deepstack_visual_indexes": [0]},
)


def make_backbone(shape: Shape, tokenizer: Any, device: str) -> Any:
    """Random weights in float32, drawn on `device`; on `meta` there are none."""
    import transformers

    ids = {t: tokenizer.convert_tokens_to_ids(t) for t in SPECIAL}
    ends = {
        "bos_token_id": None,
        "eos_token_id": ids["<|im_end|>"],
        "pad_token_id": ids["<|endoftext|>"],
    }
    settings: dict[str, Any] = {
        "text_config": shape.text | ends,
        "vision_config": shape.vision,
        "image_token_id": ids["<|image_pad|>"],
        "video_token_id": ids["<|video_pad|>"],
        "vision_start_token_id": ids["<|vision_start|>"],
        "vision_end_token_id": ids["<|vision_end|>"],
        "tie_word_embeddings": shape.tied,
    }
    torch.manual_seed(0)
    with torch.device(device):
        if shape.family == "qwen3_vl":
            return transformers.Qwen3VLForConditionalGeneration(
                transformers.Qwen3VLConfig(**settings)
            )
        return transformers.Qwen2_5_VLForConditionalGeneration(
            transformers.Qwen2_5_VLConfig(**settings)
        )


def write_checkpoint(folder: Path, shape: Shape, texts: list[str], device: str) -> int:
    """A model folder such as `--model` takes, in bfloat16; returns the number of parameters."""
    tokenizer = make_tokenizer(texts, VOCABULARY)
    small = TinyConfig(family=shape.family, patch=shape.vision["patch_size"], max_px=WIDEST_PX)  # type: ignore[arg-type]
    backbone = make_backbone(shape, tokenizer, device).to(torch.bfloat16)
    backbone.save_pretrained(folder)
    make_processor(tokenizer, small).save_pretrained(folder)
    return sum(p.numel() for p in backbone.parameters())
