"""Layers that are compiled or calculated anew: the same losses, traced whole, whatever the attention."""

import os
from itertools import product
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from torch import nn

from tests.kits.training_kit import FAMILIES, make_items, make_parts, make_release, recipe
from training import layers, loop
from training.layers import prepare_layers
from training.model import losses
from training.recipe import Recipe, TrainConfig
from training.runs import saved_steps
from training.train import COMPILED, train
from warehouse.lake import Lake
from warehouse.releases.release import Release

STEPS = {"steps": 3, "batch": 2, "accumulation": 2}


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> tuple[Lake, Release]:
    return make_release(tmp_path_factory.mktemp("layers") / "w")


@pytest.fixture
def whole(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """How layers are compiled. What is traced is run as it is: a C++ compiler would take its time."""
    options_passed: list[dict[str, Any]] = []
    plain: Any = torch.compile

    def noted(forward: Any, **options: Any) -> Any:
        options_passed.append(options)
        return plain(forward, backend="aot_eager", **options)

    monkeypatch.setattr(layers.torch, "compile", noted)
    return options_passed


def gradients(family: str, packed: bool, **settings: Any) -> list[torch.Tensor]:
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
def test_what_is_kept_changes_nothing(family: str) -> None:
    plain = gradients(family, packed=True)
    for recompute_kind in ("matmul", "all"):
        recomputed = gradients(family, packed=True, recompute=recompute_kind)
        assert all(map(torch.equal, plain, recomputed)), recompute_kind


@pytest.mark.parametrize(
    ("family", "what"),
    [
        ("qwen3_vl", "matmul"),
        *(
            pytest.param(f, w, marks=pytest.mark.slow)
            for f, w in product(FAMILIES, ("none", "all"))
        ),
    ],
)
def test_a_compiled_layer_is_the_same(family: str, what: str, whole: list[dict[str, Any]]) -> None:
    plain, compiled = (
        gradients(family, packed=True, recompute=what, compile=by_graph)
        for by_graph in (False, True)
    )
    # A break in a layer would be an error; some are left as they are
    count = {"qwen3_5": 3, "internvl": 2}.get(family, 4)
    assert whole == [{"fullgraph": True, "dynamic": True}] * count
    assert len(plain) == len(compiled)
    for plain_tensor, compiled_tensor in zip(plain, compiled, strict=True):
        assert torch.allclose(plain_tensor, compiled_tensor, rtol=1e-5, atol=1e-5)


class Alone(nn.Module):
    """One layer, of states [1, t, h] or [t, h], a rotation, and where blocks begin."""

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


@pytest.mark.parametrize("family", FAMILIES[:2])
def test_a_layer_with_varlen_is_traced_whole(family: str) -> None:
    """By shapes alone: the kernel runs on a GPU. A strict export is an error where the trace breaks."""
    model, _ = make_parts(make_items(4), family, attention="varlen")
    bounds = torch.tensor([0, 5, 12], dtype=torch.int32)
    width = 64
    for layer in layers.layers(model.backbone):
        shape = (12,) if "Vision" in type(layer).__name__ else (1, 12)
        inputs = torch.randn(*shape, width), torch.randn(*shape, width // 4), bounds, 7
        with torch.autocast("cpu", torch.bfloat16):
            traced = torch.export.export(Alone(layer), inputs, strict=True)
        assert sum("varlen" in str(node.target) for node in traced.graph.nodes) == 1


# Whole runs


def run_losses(corpus: tuple[Lake, Release], run_recipe: Recipe) -> list[float]:
    return [p.loss for p in train(*corpus, run_recipe).curve]


def packed(name: str, **settings: Any) -> Recipe:
    data = {"packing": True, "window": 16, "sequence_length": 256}
    return recipe(name, data=data, train={**STEPS, **settings})


def test_a_run_of_compiled_layers_learns_the_same(
    corpus: tuple[Lake, Release], whole: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
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


def test_one_process_learns_by_copies(
    corpus: tuple[Lake, Release],
) -> None:
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


def test_machines_hold_whole_models_and_their_processes_parts(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(
        loop, "init_device_mesh", lambda kind, shape, **names: (shape, *names.values())
    )
    cpu = torch.device("cpu")
    assert loop.mesh_of(cpu, 16, 8) == ((2, 8), ("machines", "parts"))
    assert loop.mesh_of(cpu, 8, 8) == ((8,),)
    assert loop.mesh_of(cpu, 2, 1) == ((2,),)


def test_the_older_name_of_what_is_recomputed() -> None:
    shared = {"steps": 1, "batch": 1, "lr": 1.0}
    assert TrainConfig(**shared, gradient_checkpointing=True).recompute == "all"  # type: ignore[call-arg]
    assert TrainConfig(**shared, gradient_checkpointing=False).recompute == "none"  # type: ignore[call-arg]


@pytest.mark.slow
def test_many_models_of_a_process_are_compiled(whole: list[dict[str, Any]]) -> None:
    """As when recipes follow each other, or a process trains one model after another."""
    for family in FAMILIES:
        for recompute_kind in ("matmul", "all"):
            gradients(family, packed=True, compile=True, recompute=recompute_kind)
    assert len(whole) == 26
