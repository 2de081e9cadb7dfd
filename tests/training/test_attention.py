"""Each attention of recipes: samples see nothing of each other, all give the same."""

import os
from dataclasses import replace
from itertools import pairwise, product
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from safetensors import safe_open
from torch import nn
from transformers.models.qwen3_vl.modeling_qwen3_vl import Qwen3VLTextDecoderLayer

from core.errors import FailedError
from tests.kits.training_kit import FAMILIES, bar, make_items, make_parts, make_release, recipe
from tests.kits.varlen_kernel import varlen_by_sdpa
from training import attention, backbones, loop
from training.attention import set_attention
from training.backbones import add_adapter, load_backbone, prepare_layers
from training.folder import BACKBONES, ModelError, backbone_kind
from training.model import ProgressModel, losses, save_model
from training.pictures import Item
from training.pixels import byte_patches, normalised
from training.recipe import LoraConfig, Recipe, TrainConfig
from training.runs import saved_steps
from training.train import COMPILED, train
from training.transform import Transform
from warehouse.lake import Lake
from warehouse.releases.release import Release


@pytest.fixture(scope="module", params=FAMILIES)
def saved(request, tmp_path_factory):
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


def test_pictures_of_a_size_go_to_sdpa_in_one_call(saved, monkeypatch):
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
@pytest.mark.parametrize(
    ("half", "dtype", "of_progress", "of_logits", "of_gradients"),
    [(False, torch.float32, 1e-6, 2e-6, 2e-5), (True, torch.bfloat16, 2e-2, 2e-2, 5e-2)],
)
def test_packed_samples_give_what_each_does(
    saved, name, half, dtype, of_progress, of_logits, of_gradients, monkeypatch
):
    calls = []

    def kernel(q, k, v, begin, also, longest, _, *, scale, window_size) -> torch.Tensor:
        ends = begin.tolist()
        assert q.shape == k.shape == v.shape
        assert q.dtype == k.dtype == v.dtype == dtype
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
    assert torch.allclose(progress, torch.cat([p for _, p in alone]), atol=of_progress)
    assert torch.allclose(logits, torch.cat([text for text, _ in alone]), atol=of_logits)
    for key, value in learnt.items():
        assert torch.allclose(value, expected[key], atol=of_gradients), key


@pytest.mark.parametrize("name", ["sdpa", "eager"])
@pytest.mark.parametrize("family", BACKBONES)
def test_packed_samples_are_apart(family, name):
    items = make_items(5)
    model, transform = make_parts(items, family, attention=name)
    plain = model(transform(items, packed=True)).progress
    question = "<image><image>\nIs it green?"
    items[1] = replace(items[1], question=question, pictures=(bar(1), bar(0)))
    changed = model(transform(items, packed=True)).progress
    is_same = (plain - changed).abs() < 1e-6
    assert is_same.tolist() == [True, False, True, True, True]


def test_the_machine_chooses(monkeypatch):
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


def test_packed_rows_are_one(saved):
    model = ProgressModel(load_backbone(saved.folder), saved.model.head)
    batch = saved.transform(saved.items[:4] * 2, packed=True)
    half = batch["input_ids"].shape[1] // 2
    for key in ("input_ids", "mm_token_type_ids", "labels"):
        batch[key] = batch[key].view(2, half)
    batch["position_ids"] = batch["position_ids"].view(4, 2, half)
    with pytest.raises(FailedError, match="was given 2 rows"):
        model(batch)
    set_attention(model.backbone, "eager")
    if backbone_kind(model.backbone).state:
        with pytest.raises(FailedError, match="attention by eager takes packed"):
            model(batch)
        return
    with torch.inference_mode():
        rows = model(batch).progress
        assert torch.allclose(rows, model(saved.transform(saved.items[:4] * 2)).progress, atol=1e-6)


def test_an_adapter_moves_at_a_small_rate(tmp_path):
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
    assert min(changed_shares) > 0.9
    assert {s["exp_avg_sq"].dtype for s in optimizer.state.values()} == {torch.float32}


def test_what_is_kept_is_bfloat16(tmp_path, monkeypatch):
    # Of weights in float32, whose embeddings autocast leaves in it; the loss stays about what it was
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


def test_the_head_calculates_in_float32():
    model, transform = make_parts(make_items())
    model.backbone.to(torch.bfloat16)
    dtypes = []
    for module in model.head.modules():
        module.register_forward_hook(
            lambda module, given, made: dtypes.extend([given[0].dtype, made.dtype])
        )
    with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
        model(transform(make_items()))
    assert set(dtypes) == {torch.float32}


@pytest.mark.parametrize("family", ["qwen3_vl_moe", "qwen3_5_moe"])
def test_all_linear_is_refused_of_experts(family):
    # Experts of a mixture are no linear layers: peft would adapt the attention alone, in silence
    backbone = make_parts(make_items(), family)[0].backbone
    with pytest.raises(ModelError, match=r"leave out the experts .* \[q_proj"):
        add_adapter(backbone, LoraConfig(rank=4, alpha=8))
    add_adapter(
        backbone, LoraConfig(rank=4, alpha=8, targets=("q_proj", "k_proj", "v_proj", "o_proj"))
    )
    assert any("lora_A" in name and "self_attn" in name for name, _ in backbone.named_parameters())


STEPS = {"steps": 3, "batch": 2, "accumulation": 2}


@pytest.fixture(scope="module")
def corpus(tmp_path_factory) -> tuple[Lake, Release]:
    return make_release(tmp_path_factory.mktemp("layers") / "w")


@pytest.fixture
def whole(monkeypatch) -> list[dict[str, Any]]:
    """How layers are compiled, without a C++ compiler."""
    options_passed: list[dict[str, Any]] = []
    plain: Any = torch.compile

    def noted(forward: Any, **options: Any) -> Any:
        options_passed.append(options)
        return plain(forward, backend="aot_eager", **options)

    monkeypatch.setattr(backbones.torch, "compile", noted)
    return options_passed


def layer_gradients(family: str, packed: bool, **settings: Any) -> list[torch.Tensor]:
    """Losses and gradients on batches of several shapes."""
    items = make_items(6)
    model, transform = make_parts(items, family)
    prepare_layers(model.backbone, TrainConfig(steps=1, batch=1, lr=1.0, **settings), None)
    tensors = []
    for some_items in (items, items[:4], items[2:]):
        model.zero_grad()
        batch = transform(some_items, packed)
        text, progress, _ = losses(model.head, model(batch, with_text=True), batch)
        (text + progress).backward()
        tensors += [text.detach(), progress.detach()]
        tensors += [p.grad.clone() for p in model.parameters() if p.grad is not None]
    return tensors


@pytest.mark.parametrize("family", FAMILIES)
def test_what_is_kept_changes_nothing(family):
    plain = layer_gradients(family, packed=True)
    for recompute_kind in ("matmul", "all"):
        recomputed = layer_gradients(family, packed=True, recompute=recompute_kind)
        assert all(map(torch.equal, plain, recomputed)), recompute_kind


def assert_close(plain: list[torch.Tensor], compiled: list[torch.Tensor], name: str) -> None:
    assert len(plain) == len(compiled), name
    for plain_tensor, compiled_tensor in zip(plain, compiled, strict=True):
        assert torch.allclose(plain_tensor, compiled_tensor, rtol=1e-5, atol=1e-5), name


class Alone(nn.Module):
    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer

    def forward(
        self, states: torch.Tensor, turn: torch.Tensor, bounds: torch.Tensor, longest: int
    ) -> torch.Tensor:
        if states.ndim == 2:
            return self.layer(
                states, cu_seqlens=bounds, max_seqlen=longest, position_embeddings=(turn, turn)
            )
        of_text = {
            "cu_seq_lens_q": bounds,
            "cu_seq_lens_k": bounds,
            "max_length_q": longest,
            "max_length_k": longest,
        }
        return self.layer(states, attention_mask=None, position_embeddings=(turn, turn), **of_text)


@pytest.mark.parametrize("family", [FAMILIES[0], pytest.param(FAMILIES[1], marks=pytest.mark.slow)])
def test_a_layer_with_varlen_is_traced_whole(family):
    # By shapes alone: the kernel runs on a GPU. A strict export is an error where the trace breaks
    model, _ = make_parts(make_items(4), family, attention="varlen")
    bounds = torch.tensor([0, 5, 12], dtype=torch.int32)
    width = 64
    for layer in backbones.layers(model.backbone):
        shape = (12,) if "Vision" in type(layer).__name__ else (1, 12)
        inputs = torch.randn(*shape, width), torch.randn(*shape, width // 4), bounds, 7
        with torch.autocast("cpu", torch.bfloat16):
            traced = torch.export.export(Alone(layer), inputs, strict=True)
        assert sum("varlen" in str(node.target) for node in traced.graph.nodes) == 1


def run_losses(corpus: tuple[Lake, Release], run_recipe: Recipe) -> list[float]:
    return [p.loss for p in train(*corpus, run_recipe).curve]


def packed(name: str, **settings: Any) -> Recipe:
    data = {"packing": True, "window": 16, "sequence_length": 256}
    return recipe(name, data=data, train={**STEPS, **settings})


@pytest.mark.slow
def test_a_run_of_compiled_layers_learns_the_same(corpus, whole, monkeypatch):
    plain = run_losses(corpus, packed("plain"))
    assert whole == []
    monkeypatch.delenv("TORCHINDUCTOR_CACHE_DIR", raising=False)
    compiled_losses = run_losses(corpus, packed("compiled", compile=True, recompute="matmul"))
    assert len(whole) == 4
    assert compiled_losses == pytest.approx(plain, abs=1e-5)
    # What was compiled is there for the next run, in the workspace
    assert (
        Path(os.environ["TORCHINDUCTOR_CACHE_DIR"])
        == corpus[0].workspace.root / "models" / COMPILED
    )


def test_one_process_learns_by_copies(corpus):
    dtypes = set[torch.dtype]()

    def note(module: nn.Module, *args: Any) -> None:
        dtypes.update(p.dtype for p in module.parameters())

    whole = run_losses(corpus, packed("in_float32"))
    by_casts = run_losses(corpus, packed("by_casts", dtype="bfloat16"))
    handle = nn.modules.module.register_module_forward_pre_hook(
        lambda module, given: (
            note(module) if type(module).__name__ == "Qwen3VLTextRMSNorm" else None
        )
    )
    try:
        by_copies = train(
            *corpus, packed("by_copies", dtype="bfloat16", distributed="fsdp", save_every=2)
        )
    finally:
        handle.remove()
    assert dtypes == {torch.bfloat16}
    assert [p.loss for p in by_copies.curve] == pytest.approx(by_casts, rel=2e-2)
    assert by_casts == pytest.approx(whole, rel=2e-2)
    (kept_step,) = saved_steps(by_copies.checkpoint.with_name(f"{by_copies.id}.steps"))
    with safe_open(next(kept_step.glob("*.safetensors")), "pt") as weights:
        assert {weights.get_slice(name).get_dtype() for name in weights.keys()} == {"F32"}  # noqa: SIM118
    assert not torch.distributed.is_initialized()


def test_machines_hold_whole_models_and_their_processes_parts(monkeypatch):
    monkeypatch.setattr(
        loop, "init_device_mesh", lambda kind, shape, **names: (shape, *names.values())
    )
    cpu = torch.device("cpu")
    assert loop.mesh_of(cpu, 16, 8) == ((2, 8), ("machines", "parts"))
    assert loop.mesh_of(cpu, 8, 8) == ((8,),)
    assert loop.mesh_of(cpu, 2, 1) == ((2,),)


def test_the_older_name_of_what_is_recomputed():
    shared = {"steps": 1, "batch": 1, "lr": 1.0}
    assert TrainConfig(**shared, gradient_checkpointing=True).recompute == "all"
    assert TrainConfig(**shared, gradient_checkpointing=False).recompute == "none"


RECOMPUTED = ("none", "matmul", "all")
ALL_MODELS = [*product(FAMILIES, RECOMPUTED)]
# To compile a model takes 10 s. The layers of the other two families are traced whole above
SOME_MODELS = [("qwen3_5", "all"), ("internvl", "none")]


@pytest.mark.parametrize(
    "models",
    [
        pytest.param(SOME_MODELS, marks=pytest.mark.slow, id="some"),
        pytest.param(ALL_MODELS, marks=pytest.mark.long, id="all"),
    ],
)
def test_many_models_of_a_process_are_compiled_and_are_the_same(whole, models):
    for family, kind in models:
        plain = layer_gradients(family, packed=True)
        assert whole == []
        compiled = layer_gradients(family, packed=True, compile=True, recompute=kind)
        # A break in a layer would be an error; some are left as they are
        count = {"qwen3_5": 3, "internvl": 2}.get(family, 4)
        assert whole == [{"fullgraph": True, "dynamic": True}] * count
        whole.clear()
        assert_close(plain, compiled, f"{family}, {kind}")
