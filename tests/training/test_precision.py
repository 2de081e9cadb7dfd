"""What learns is float32, and the head calculates in it, also where the model is bfloat16."""

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers.models.qwen3_vl.modeling_qwen3_vl import Qwen3VLTextDecoderLayer

from tests.kits.training_kit import make_items, make_parts, make_release, recipe
from training.backbones import add_adapter
from training.model import ProgressModel, losses
from training.recipe import LoraConfig
from training.train import train
from training.transform import Transform

LORA = LoraConfig(rank=4, alpha=8)


def adapted(folder: Path) -> tuple[ProgressModel, Transform]:
    """An adapter on a base in bfloat16."""
    model, transform = make_parts(make_items())
    model.backbone.to(torch.bfloat16)
    model.backbone.name_or_path = str(folder / "base")
    torch.manual_seed(0)
    add_adapter(model.backbone, LORA)
    return model, transform


def test_an_adapter_on_a_base_in_bfloat16_moves_at_a_small_rate(tmp_path: Path) -> None:
    model, transform = adapted(tmp_path)
    learning = {n: p for n, p in model.backbone.named_parameters() if p.requires_grad}
    assert learning
    assert {p.dtype for p in learning.values()} == {torch.float32}
    assert {p.dtype for n, p in model.backbone.named_parameters() if n not in learning} == {torch.bfloat16}
    before = {n: p.detach().clone() for n, p in learning.items()}
    optimizer = torch.optim.AdamW(learning.values(), lr=1e-5, weight_decay=0)
    batch = transform(make_items())
    for _ in range(3):
        with torch.autocast("cpu", torch.bfloat16):
            output = model(batch, with_text=True)
        of = losses(model.head, output, batch)
        (
            of.text / (batch["labels"][:, 1:] >= 0).sum() + of.progress / (~torch.isnan(batch["progress"])).sum()
        ).backward()
        optimizer.step()
        optimizer.zero_grad()
    moved = [(p != before[n]).float().mean().item() for n, p in learning.items() if "lora_A" in n]
    assert min(moved) > 0.9  # in bfloat16: 3 in a hundred
    assert {s["exp_avg_sq"].dtype for s in optimizer.state.values()} == {torch.float32}


def test_what_is_kept_to_calculate_layers_anew_is_bfloat16(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of weights in float32, whose embeddings autocast leaves in it; the loss stays about what it was."""
    kept: set[torch.dtype] = set()
    layer = Qwen3VLTextDecoderLayer.forward

    def noted(self: Any, hidden_states: torch.Tensor, *args: Any, **more: Any) -> Any:
        kept.add(hidden_states.dtype)
        return layer(self, hidden_states, *args, **more)

    monkeypatch.setattr(Qwen3VLTextDecoderLayer, "forward", noted)
    lake, release = make_release(tmp_path / "w")
    losses_of = {}
    for anew in (False, True):
        kept.clear()
        settings = {"steps": 2, "batch": 2, "dtype": "bfloat16", "gradient_checkpointing": anew}
        losses_of[anew] = [p.loss for p in train(lake, release, recipe("kept", train=settings)).curve]
        assert kept == {torch.bfloat16 if anew else torch.float32}
    assert losses_of[True] == pytest.approx(losses_of[False], rel=2e-3)


def test_the_head_calculates_in_float32() -> None:
    model, transform = make_parts(make_items())
    model.backbone.to(torch.bfloat16)
    assert model.head is not None
    seen = []
    for module in model.head.modules():
        module.register_forward_hook(lambda module, given, made: seen.extend([given[0].dtype, made.dtype]))
    with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
        model(transform(make_items()))
    assert set(seen) == {torch.float32}
