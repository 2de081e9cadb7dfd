"""The layers of a model in training: which there are, what of each is calculated anew for the backward pass, and
whether each is compiled.

A layer's `forward` is replaced, so that hooks (of a model that is divided) stay outside, and names of weights as they
are.
"""

import os
import re
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.utils.checkpoint import (
    CheckpointPolicy,
    checkpoint,
    create_selective_checkpoint_contexts,
)

from training.folder import backbone_kind
from training.recipe import TrainConfig

# Operators whose results are kept where `matmul` is: multiplications, and attention by any kernel
KEPT = re.compile(r"\.(mm|addmm|bmm|baddbmm|_?convolution)\.|attention|attn")


def layers(backbone: nn.Module) -> list[nn.Module]:
    """The layers of the language model and of the vision tower."""
    names: Any = backbone._no_split_modules
    return [m for m in backbone.modules() if type(m).__name__ in names]


def prepare_layers(backbone: nn.Module, train: TrainConfig, cache: Path | None) -> None:
    """Let each layer calculate as the recipe says. In place. `cache`: the folder where compiled layers stay for the
    next run; None: torch's own."""
    if train.compile:
        # PyTorch counts compilations of one function over all models of a process, and a ninth is an error
        torch.compiler.reset()
        if cache is not None:
            os.environ.setdefault("TORCHINDUCTOR_CACHE_DIR", str(cache))
    kind = backbone_kind(backbone)
    for layer in layers(backbone):
        forward: Any = layer.forward
        # Neither a layer that is called sample by sample is traced whole, nor one whose states are captured
        is_captured = not kind.free_size and "Vision" in type(layer).__name__
        is_whole = not is_captured and not (kind.state and hasattr(layer, kind.state))
        if train.recompute != "none":
            forward = recomputed(forward, train.recompute)
        if train.compile and is_whole:
            # Whole, or an error: a layer in pieces would be as slow as before, and nobody would know.
            forward = torch.compile(forward, fullgraph=True, dynamic=True)
        layer.forward = forward


def recomputed(forward: Any, choice: str) -> Any:
    """`forward`, of which less is kept for the backward pass: `matmul` keeps results of matrices and attention, `all`
    nothing but what it is given."""
    if choice == "all":
        return partial(checkpoint, forward, use_reentrant=False)
    contexts = partial(create_selective_checkpoint_contexts, _policy)
    return partial(checkpoint, forward, use_reentrant=False, context_fn=contexts)


def _policy(context: Any, operator: Any, *args: Any, **options: Any) -> CheckpointPolicy:
    if KEPT.search(str(operator)):
        return CheckpointPolicy.MUST_SAVE
    return CheckpointPolicy.PREFER_RECOMPUTE
