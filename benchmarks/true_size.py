"""Checkpoints of published models' sizes with random weights: what is measured on them is what the real ones take.

Sizes are those of the published config.json; ids of special tokens are those of the small tokenizer made here.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from training.recipe import TinyConfig
from training.tiny import SPECIAL, make_processor, make_tokenizer

VOCABULARY = 800  # of the tokenizer; the models' tables of embeddings keep their true size
WIDEST_PX = 4096


@dataclass(frozen=True)
class Shape:
    """A model's sizes; `family` as config.json's model_type."""

    family: str
    text: dict[str, Any]
    vision: dict[str, Any]
    tied: bool = True


def _qwen3(
    text: dict[str, Any], vision: dict[str, Any] | None = None, sections: tuple[int, ...] = (24, 20, 20)
) -> Shape:
    rotary = {"rope_type": "default", "rope_theta": 5e6, "mrope_section": list(sections), "mrope_interleaved": True}
    shared = {"vocab_size": 151936, "head_dim": 128, "num_key_value_heads": 8, "max_position_embeddings": 262144}
    tower = {"depth": 24, "hidden_size": 1024, "intermediate_size": 4096, "num_heads": 16, "patch_size": 16}
    tower |= {"num_position_embeddings": 2304, "deepstack_visual_indexes": [5, 11, 17]}
    text = shared | {"rms_norm_eps": 1e-6, "rope_parameters": rotary} | text
    return Shape("qwen3_vl", text, tower | {"out_hidden_size": text["hidden_size"]} | (vision or {}))


def _qwen2_5(text: dict[str, Any], tied: bool) -> Shape:
    rotary = {"rope_type": "default", "rope_theta": 1e6, "mrope_section": [16, 24, 24]}
    tower = {"depth": 32, "hidden_size": 1280, "intermediate_size": 3420, "num_heads": 16, "patch_size": 14}
    tower |= {"window_size": 112, "fullatt_block_indexes": [7, 15, 23, 31], "out_hidden_size": text["hidden_size"]}
    shared = {"vocab_size": 151936, "max_position_embeddings": 128000, "rms_norm_eps": 1e-6, "rope_parameters": rotary}
    return Shape("qwen2_5_vl", shared | text, tower, tied)


def _layers(hidden: int, between: int, layers: int, heads: int) -> dict[str, Any]:
    names = ("hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads")
    return dict(zip(names, (hidden, between, layers, heads), strict=True))


SHAPES = {
    "Qwen3-VL-2B": _qwen3(_layers(2048, 6144, 28, 16)),
    "Qwen3-VL-4B": _qwen3(_layers(2560, 9728, 36, 32)),
    "Qwen2.5-VL-3B": _qwen2_5(_layers(2048, 11008, 36, 16) | {"num_key_value_heads": 2}, tied=True),
    "Qwen2.5-VL-7B": _qwen2_5(
        _layers(3584, 18944, 28, 28) | {"num_key_value_heads": 4, "vocab_size": 152064}, tied=False
    ),
    "tiny": _qwen3(
        _layers(64, 128, 2, 4) | {"vocab_size": 832, "num_key_value_heads": 2, "head_dim": 16},
        {"depth": 2, "hidden_size": 64, "intermediate_size": 128, "num_heads": 4}
        | {"num_position_embeddings": 64, "deepstack_visual_indexes": [0]},
        sections=(4, 2, 2),
    ),
}


def make_backbone(shape: Shape, tokenizer: Any, device: str) -> Any:
    """Random weights in float32, drawn on `device`; on `meta` there are none."""
    import transformers

    ids = {t: tokenizer.convert_tokens_to_ids(t) for t in SPECIAL}
    ends = {"bos_token_id": None, "eos_token_id": ids["<|im_end|>"], "pad_token_id": ids["<|endoftext|>"]}
    settings: dict[str, Any] = {
        "text_config": shape.text | ends,
        "vision_config": shape.vision | {"spatial_merge_size": 2, "temporal_patch_size": 2},
        "image_token_id": ids["<|image_pad|>"],
        "video_token_id": ids["<|video_pad|>"],
        "vision_start_token_id": ids["<|vision_start|>"],
        "vision_end_token_id": ids["<|vision_end|>"],
        "tie_word_embeddings": shape.tied,
    }
    torch.manual_seed(0)
    with torch.device(device):
        if shape.family == "qwen3_vl":
            return transformers.Qwen3VLForConditionalGeneration(transformers.Qwen3VLConfig(**settings))
        return transformers.Qwen2_5_VLForConditionalGeneration(transformers.Qwen2_5_VLConfig(**settings))


def write_checkpoint(folder: Path, shape: Shape, texts: list[str], device: str) -> int:
    """A model folder such as `--model` takes, in bfloat16; returns the number of parameters."""
    tokenizer = make_tokenizer(texts, VOCABULARY)
    small = TinyConfig(family=shape.family, patch=shape.vision["patch_size"], max_px=WIDEST_PX)  # type: ignore[arg-type]
    backbone = make_backbone(shape, tokenizer, device).to(torch.bfloat16)
    backbone.save_pretrained(folder)
    make_processor(tokenizer, small).save_pretrained(folder)
    return sum(p.numel() for p in backbone.parameters())
