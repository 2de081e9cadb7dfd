"""A tiny Qwen3-VL or Qwen2.5-VL with random weights, in its real transformers classes, and a tokenizer made from the
corpus.

About 2 M parameters: it trains on two CPU cores in minutes and exercises every line that a 2B model does.
"""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
import transformers
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from training.recipe import TinyConfig

SPECIAL = (
    "<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|vision_start|>", "<|vision_end|>", "<|vision_pad|>",
    "<|image_pad|>", "<|video_pad|>",
)  # fmt: skip
# The turn format of Qwen chat models
CHAT_TEMPLATE = (Path(__file__).parent / "prompts" / "chat.jinja").read_text()


def make_tokenizer(texts: Iterable[str], size: int) -> Any:
    """A byte-level BPE tokenizer with Qwen's special tokens; any text can be encoded."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=size - len(SPECIAL), show_progress=False, initial_alphabet=pre_tokenizers.ByteLevel.alphabet()
    )
    tokenizer.train_from_iterator(sorted(set(texts)), trainer)
    tokenizer.add_special_tokens([AddedToken(t, special=True, normalized=False) for t in SPECIAL])
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
        additional_special_tokens=[SPECIAL[1], *SPECIAL[3:]],
        model_max_length=32768,
        clean_up_tokenization_spaces=False,
        chat_template=CHAT_TEMPLATE,
    )


def make_processor(tokenizer: Any, config: TinyConfig) -> Any:
    settings: dict[str, Any] = {
        "patch_size": config.patch,
        "temporal_patch_size": 2,
        "merge_size": 2,
        "image_mean": [0.5] * 3,
        "image_std": [0.5] * 3,
        "size": {"shortest_edge": (2 * config.patch) ** 2, "longest_edge": config.max_px**2},
    }
    if config.family == "qwen2_5_vl":
        kind, video = transformers.Qwen2_5_VLProcessor, transformers.Qwen2VLVideoProcessor
    else:
        kind, video = transformers.Qwen3VLProcessor, transformers.Qwen3VLVideoProcessor
    return kind(
        image_processor=transformers.Qwen2VLImageProcessor(**settings),
        video_processor=video(**settings),
        tokenizer=tokenizer,
        chat_template=CHAT_TEMPLATE,
    )


def make_backbone(tokenizer: Any, config: TinyConfig, seed: int) -> Any:
    """Random weights, equal for equal seeds."""
    head_dim = config.hidden // config.heads
    rotary = head_dim // 2  # split over time, height and width
    sections = [rotary - 2 * (rotary // 3), rotary // 3, rotary // 3]
    ids = {t: tokenizer.convert_tokens_to_ids(t) for t in SPECIAL}
    qwen3 = config.family == "qwen3_vl"
    settings: dict[str, Any] = {
        "text_config": {
            "vocab_size": -(-len(tokenizer) // 64) * 64,
            "hidden_size": config.hidden,
            "intermediate_size": 2 * config.hidden,
            "num_hidden_layers": config.layers,
            "num_attention_heads": config.heads,
            "num_key_value_heads": config.heads // 2,
            "max_position_embeddings": 32768,
            "rms_norm_eps": 1e-6,
            "bos_token_id": None,
            "eos_token_id": ids["<|im_end|>"],
            "pad_token_id": ids["<|endoftext|>"],
            "rope_parameters": {"rope_type": "default", "rope_theta": 500000.0, "mrope_section": sections}
            | ({"mrope_interleaved": True} if qwen3 else {}),
        }
        | ({"head_dim": head_dim} if qwen3 else {}),
        "vision_config": {
            "depth": config.vision_layers,
            "hidden_size": config.vision_hidden,
            "intermediate_size": 2 * config.vision_hidden,
            "num_heads": 4,
            "out_hidden_size": config.hidden,
            "patch_size": config.patch,
            "spatial_merge_size": 2,
            "temporal_patch_size": 2,
        }
        | (
            {"num_position_embeddings": 16 * 16, "deepstack_visual_indexes": [0]}
            if qwen3  # the others look at windows of 2x2 merged patches, at the whole picture in the last layer only
            else {"window_size": 4 * config.patch, "fullatt_block_indexes": [config.vision_layers - 1]}
        ),
        "image_token_id": ids["<|image_pad|>"],
        "video_token_id": ids["<|video_pad|>"],
        "vision_start_token_id": ids["<|vision_start|>"],
        "vision_end_token_id": ids["<|vision_end|>"],
        "tie_word_embeddings": True,
    }
    torch.manual_seed(seed)
    if qwen3:
        return transformers.Qwen3VLForConditionalGeneration(transformers.Qwen3VLConfig(**settings)).float()
    return transformers.Qwen2_5_VLForConditionalGeneration(transformers.Qwen2_5_VLConfig(**settings)).float()
