"""How much arithmetic a training step is, and how much of a device's that uses (MFU).

FLOPs of a step, recomputation not counted:
  2 P n                    forward, for each linear layer of P weights applied to n tokens (or patches)
  4 L d sum(t^2) c         forward, attention of L layers of width d over sequences of t; c = 1/2 where it is causal
and the backward pass as much again for the gradient of what comes in, and as much again for that of the weights; the
first is needed where anything trained lies before, the second where the weights are trained themselves.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from training.transform import IGNORE, Batch

# Dense bfloat16, FLOP/s, as the makers state
PEAK = {"H200": 989e12, "H100": 989e12, "A100": 312e12, "L40S": 362e12, "L4": 121e12, "4090": 165e12, "B200": 2250e12}
# Bytes of memory, 1/s
BANDWIDTH = {"H200": 4.8e12, "H100": 3.35e12, "A100": 2e12, "L40S": 8.6e11, "L4": 3e11, "4090": 1e12, "B200": 8e12}


@dataclass(frozen=True)
class Flops:
    """FLOPs of training on what is given, one token or patch each, by part of the model."""

    language: float
    output: float  # the layer that gives logits: on answer tokens alone
    vision: float
    language_attention: float  # by the square of a sequence's length
    vision_attention: float

    def of(self, batch: Batch) -> float:
        """FLOPs of a step on a batch, forward and backward; padding is not counted."""
        # Packed or not, attention costs by the square of each item's own length, not of the row's.
        if "item_mask" in batch:
            lengths = batch["item_mask"].sum(-1)
        else:
            lengths = batch["attention_mask"].sum(-1)
        flops = self.language * float(lengths.sum()) + self.language_attention * float((lengths.double() ** 2).sum())
        flops += self.output * float((batch["labels"] != IGNORE).sum())
        if "image_grid_thw" in batch:
            patches = batch["image_grid_thw"].prod(-1).double()
            flops += self.vision * float(patches.sum()) + self.vision_attention * float((patches**2).sum())
        return flops


def cost(backbone: Any) -> Flops:
    """Of a model as it is frozen now: the parameters that learn say what of the backward pass there is."""
    text, vision = backbone.config.get_text_config(), backbone.config.vision_config
    heads = text.num_attention_heads * getattr(text, "head_dim", text.hidden_size // text.num_attention_heads)
    tower, language, out = backbone.model.visual, backbone.model.language_model, backbone.lm_head.weight
    # Gradients pass through all that lies after a part that learns; the vision tower comes first.
    in_tower = any(p.requires_grad for p in tower.parameters())
    anywhere = in_tower or any(p.requires_grad for p in language.parameters())
    return Flops(
        language=_passes(language, anywhere),
        output=2 * out.numel() * (1 + anywhere + out.requires_grad),
        vision=_passes(tower, in_tower, vision.spatial_merge_size**2),
        language_attention=4 * text.num_hidden_layers * heads * 0.5 * (1 + 2 * anywhere),
        vision_attention=4 * vision.depth * vision.hidden_size * (1 + 2 * in_tower),
    )


def _passes(module: nn.Module, gradients: bool, merged: int = 1) -> float:
    """FLOPs on one token or patch of all layers that multiply each: forward, for the gradient of what comes in, and for
    that of the weights that learn. A merger works on `merged` patches at once. Tables that are looked up in are none.
    """
    tables = {id(m.weight) for m in module.modules() if isinstance(m, nn.Embedding)}
    flops = 0.0
    for name, p in module.named_parameters():
        if p.ndim >= 2 and id(p) not in tables:
            # Nothing before the pixels learns.
            back = gradients and "patch_embed" not in name
            flops += 2 * p.numel() * (1 + back + p.requires_grad) / (merged if "merger" in name else 1)
    return flops


def card_here() -> str | None:
    """The name in PEAK of this machine's GPU; None where there is none, or one that is not known."""
    # The full name has more in it: NVIDIA H100 80GB HBM3.
    name = torch.cuda.get_device_name(0) if torch.cuda.is_available() else ""
    return next((known for known in PEAK if known in name), None)
