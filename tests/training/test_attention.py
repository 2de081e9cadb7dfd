"""Each attention that a recipe can name: samples and pictures see nothing of each other, all give the same."""

from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from transformers.models.qwen3_vl.modeling_qwen3_vl import Qwen3VLTextDecoderLayer

from core.errors import FailedError
from tests.kits.training_kit import FAMILIES, bar, make_items, make_parts, make_release, recipe
from tests.kits.varlen_kernel import varlen_by_sdpa
from training import attention
from training.attention import set_attention
from training.backbones import add_adapter, load_backbone
from training.folder import BACKBONES, ModelError, backbone_kind
from training.model import ProgressModel, losses, save_model
from training.pictures import Item
from training.pixels import byte_patches, normalised
from training.recipe import LoraConfig
from training.train import train
from training.transform import Transform


@pytest.fixture(scope="module", params=FAMILIES)
def saved(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory):
    """A checkpoint, what it gives when it is asked eagerly in padded rows, and the items."""
    # Pictures of several sizes, among them one beside whose whole windows part of one is left
    wide = (bar(0.5)[:48], bar(0.7)[:, :32], bar(0.1))
    items = [
        *make_items(5),
        Item("<image><image><image> which?", wide, "the last", 0.25),
        *make_items(3),
    ]
    model, transform = make_parts(items, request.param, attention="eager")
    folder = tmp_path_factory.mktemp(request.param) / "m"
    save_model(model, transform.processor, folder, {})
    return SimpleNamespace(folder=folder, model=model, transform=transform, items=items)


def outputs(model: ProgressModel, transform: Transform, items: list[Item], packed: bool) -> tuple:
    """Logits and progress."""
    with torch.inference_mode():
        output = model(transform(items, packed), with_text=True)
    return output.logits, output.progress


def gradients(
    model: ProgressModel, transform: Transform, items: list[Item], packed: bool
) -> dict[str, torch.Tensor]:
    """Of one step, by parameter."""
    batch = transform(items, packed)
    model.zero_grad()
    text, progress, _ = losses(model.head, model(batch, with_text=True), batch)
    (text / (batch["labels"][:, 1:] >= 0).sum() + progress / len(batch["progress"])).backward()
    return {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}


def test_pictures_of_a_size_go_to_sdpa_in_one_call(saved, monkeypatch: pytest.MonkeyPatch) -> None:
    model = ProgressModel(load_backbone(saved.folder), saved.model.head)
    plain = torch.nn.functional.scaled_dot_product_attention
    calls = []

    def counted(query: torch.Tensor, *args, **kwargs):
        calls.append(query.shape[0])
        return plain(query, *args, **kwargs)

    monkeypatch.setattr(torch.nn.functional, "scaled_dot_product_attention", counted)
    with torch.inference_mode():
        vision_outputs = model.see(
            normalised(
                byte_patches(
                    saved.transform.processor.image_processor, [bar(k / 10) for k in range(10)]
                )
            )
        )
    assert len(vision_outputs) == 10
    assert len(calls) == model.backbone.config.vision_config.depth
    assert min(calls) >= 10


@pytest.mark.parametrize("name", ["sdpa", "varlen"])
@pytest.mark.parametrize("half", [False, True])
def test_packed_samples_give_what_each_does(
    saved, name: str, half: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = []

    def kernel(q, k, v, begin, also, longest, _, *, scale, window_size) -> torch.Tensor:
        ends = begin.tolist()
        assert q.shape == k.shape == v.shape
        assert q.dtype == k.dtype == v.dtype == (torch.bfloat16 if half else torch.float32)
        assert (begin.dtype, ends[-1], longest) == (
            torch.int32,
            len(q),
            max(b - a for a, b in pairwise(ends)),
        )
        calls.append(window_size)
        return varlen_by_sdpa(q, k, v, begin, scale=scale, window_size=window_size)

    monkeypatch.setattr(attention, "varlen_attn", kernel)
    model = ProgressModel(load_backbone(saved.folder, name), saved.model.head)
    items = saved.items
    with torch.autocast("cpu", torch.bfloat16, enabled=half):
        logits, progress = outputs(model, saved.transform, items, packed=True)
        alone = [outputs(model, saved.transform, [item], packed=False) for item in items]
        learnt = gradients(model, saved.transform, items, packed=True)
        expected = gradients(model, saved.transform, items, packed=False)
    # Pictures of one size, and layers with a state, do not ask for the kernel
    of_packed = [(-1, -1), (-1, -1), (-1, 0), (-1, 0)]
    if name != "varlen":
        of_packed = []
    elif model.backbone.config.model_type == "internvl":
        of_packed = of_packed[2:]
    elif model.backbone.config.model_type == "qwen3_5":
        of_packed = of_packed[:3]
    assert calls[: len(of_packed)] == of_packed
    assert torch.allclose(progress, torch.cat([p for _, p in alone]), atol=2e-2 if half else 1e-6)
    assert torch.allclose(
        logits, torch.cat([text_logits for text_logits, _ in alone]), atol=2e-2 if half else 2e-6
    )
    for key, value in learnt.items():
        assert torch.allclose(value, expected[key], atol=5e-2 if half else 2e-5), key


@pytest.mark.parametrize("name", ["sdpa", "eager"])
@pytest.mark.parametrize("family", BACKBONES)
def test_packed_samples_are_apart(family: str, name: str) -> None:
    items = make_items(5)
    model, transform = make_parts(items, family, attention=name)
    plain = model(transform(items, packed=True)).progress
    question = "<image><image>\nIs it green?"
    items[1] = replace(items[1], question=question, pictures=(bar(1), bar(0)))
    changed = model(transform(items, packed=True)).progress
    is_same = (plain - changed).abs() < 1e-6
    assert is_same.tolist() == [True, False, True, True, True]


def test_the_machine_chooses(monkeypatch: pytest.MonkeyPatch) -> None:
    assert attention.chosen("auto", "bfloat16") == "sdpa"
    available = {2: False, 3: False}
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    for version in available:
        monkeypatch.setattr(
            attention, f"is_flash_attn_{version}_available", lambda v=version: available[v]
        )
    for capability, installed, dtype, expected in (
        ((7, 5), {2, 3}, "bfloat16", "sdpa"),
        ((8, 0), {2, 3}, "float32", "sdpa"),
        ((8, 0), {2, 3}, "bfloat16", "flash_attention_2"),
        ((9, 0), {2, 3}, "bfloat16", "flash_attention_3"),
        ((9, 0), {2}, "bfloat16", "flash_attention_2"),
        ((9, 0), set(), "bfloat16", "varlen"),
    ):
        monkeypatch.setattr(torch.cuda, "get_device_capability", lambda of=capability: of)
        available.update({version: version in installed for version in available})
        assert attention.chosen("auto", dtype) == expected
        assert attention.chosen("eager", dtype) == "eager"


def test_packed_rows_are_one(saved) -> None:
    model = ProgressModel(load_backbone(saved.folder), saved.model.head)
    batch = saved.transform(saved.items[:4] * 2, packed=True)
    half = batch["input_ids"].shape[1] // 2
    for key in ("input_ids", "mm_token_type_ids", "labels"):
        batch[key] = batch[key].view(2, half)
    batch["position_ids"] = batch["position_ids"].view(4, 2, half)
    with pytest.raises(FailedError, match="in one row without padding, and was given 2 rows"):
        model(batch)
    set_attention(model.backbone, "eager")
    if backbone_kind(model.backbone).state:
        with pytest.raises(FailedError, match="attention by eager takes packed samples in one"):
            model(batch)
        return
    with torch.inference_mode():
        rows = model(batch).progress
        assert torch.allclose(rows, model(saved.transform(saved.items[:4] * 2)).progress, atol=1e-6)


# Precision


def test_an_adapter_moves_at_a_small_rate(tmp_path: Path) -> None:
    model, transform = make_parts(make_items())
    model.backbone.to(torch.bfloat16)
    model.backbone.name_or_path = str(tmp_path / "base")
    torch.manual_seed(0)
    add_adapter(model.backbone, LoraConfig(rank=4, alpha=8))
    learning = {n: p for n, p in model.backbone.named_parameters() if p.requires_grad}
    assert learning
    assert {p.dtype for p in learning.values()} == {torch.float32}
    assert {p.dtype for n, p in model.backbone.named_parameters() if n not in learning} == {
        torch.bfloat16
    }
    weights_before = {n: p.detach().clone() for n, p in learning.items()}
    optimizer = torch.optim.AdamW(learning.values(), lr=1e-5, weight_decay=0)
    for _ in range(3):
        with torch.autocast("cpu", torch.bfloat16):
            gradients(model, transform, make_items(), packed=False)
        optimizer.step()
    changed_shares = [
        (p != weights_before[n]).float().mean().item() for n, p in learning.items() if "lora_A" in n
    ]
    assert min(changed_shares) > 0.9  # in bfloat16: 3 in a hundred
    assert {s["exp_avg_sq"].dtype for s in optimizer.state.values()} == {torch.float32}


def test_what_is_kept_is_bfloat16(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of weights in float32, whose embeddings autocast leaves in it; the loss stays about what it was."""
    kept_dtypes: set[torch.dtype] = set()
    layer = Qwen3VLTextDecoderLayer.forward

    def noted(self: Any, hidden_states: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
        kept_dtypes.add(hidden_states.dtype)
        return layer(self, hidden_states, *args, **kwargs)

    monkeypatch.setattr(Qwen3VLTextDecoderLayer, "forward", noted)
    lake, release = make_release(tmp_path / "w")
    losses_of = {}
    for recalculates in (False, True):
        kept_dtypes.clear()
        settings = {
            "steps": 2,
            "batch": 2,
            "dtype": "bfloat16",
            "recompute": "all" if recalculates else "none",
        }
        losses_of[recalculates] = [
            p.loss for p in train(lake, release, recipe("kept", train=settings)).curve
        ]
        assert kept_dtypes == {torch.bfloat16 if recalculates else torch.float32}
    assert losses_of[True] == pytest.approx(losses_of[False], rel=2e-3)


def test_the_head_calculates_in_float32() -> None:
    model, transform = make_parts(make_items())
    model.backbone.to(torch.bfloat16)
    assert model.head is not None
    dtypes = []
    for module in model.head.modules():
        module.register_forward_hook(
            lambda module, given, made: dtypes.extend([given[0].dtype, made.dtype])
        )
    with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
        model(transform(make_items()))
    assert set(dtypes) == {torch.float32}


@pytest.mark.parametrize("family", ["qwen3_vl_moe", "qwen3_5_moe"])
def test_all_linear_is_refused_of_experts(family: str) -> None:
    """Experts of a mixture are no linear layers: peft would adapt the attention alone, in silence."""
    backbone = make_parts(make_items(), family)[0].backbone
    with pytest.raises(ModelError, match=r"all-linear would leave out the experts .* \[q_proj"):
        add_adapter(backbone, LoraConfig(rank=4, alpha=8))
    add_adapter(
        backbone, LoraConfig(rank=4, alpha=8, targets=("q_proj", "k_proj", "v_proj", "o_proj"))
    )
    assert any("lora_A" in name and "self_attn" in name for name, _ in backbone.named_parameters())
