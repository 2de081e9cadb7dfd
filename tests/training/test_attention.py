"""Each attention that a recipe can name: samples and pictures see nothing of each other, all give the same."""

from itertools import pairwise
from types import SimpleNamespace

import pytest
import torch

from core.errors import FailedError
from tests.kits.training_kit import FAMILIES, bar, make_items, make_parts
from tests.kits.varlen_kernel import varlen_by_sdpa
from training import attention
from training.attention import set_attention
from training.backbones import load_backbone
from training.model import ProgressModel, losses, save_model
from training.pictures import Item
from training.pixels import normalised
from training.transform import Transform


def mixed_items() -> list[Item]:
    """Pictures of several sizes, among them one beside whose whole windows part of one is left."""
    wide = [bar(0.5)[:48], bar(0.7)[:, :32], bar(0.1)]
    return [*make_items(5), Item("<image><image><image> which?", tuple(wide), "the last", 0.25), *make_items(3)]


@pytest.fixture(scope="module", params=FAMILIES)
def saved(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory):
    """A checkpoint, what it gives when it is asked eagerly in padded rows, and the items."""
    items = mixed_items()
    model, transform = make_parts(items, request.param, attention="eager")
    folder = tmp_path_factory.mktemp(request.param) / "m"
    save_model(model, transform.processor, folder, {})
    return SimpleNamespace(folder=folder, model=model, transform=transform, items=items)


def outputs(model: ProgressModel, transform: Transform, items: list[Item], packed: bool) -> tuple:
    """Logits and progress."""
    with torch.inference_mode():
        output = model(transform(items, packed), with_text=True)
    return output.logits, output.progress


def gradients(model: ProgressModel, transform: Transform, items: list[Item], packed: bool) -> dict[str, torch.Tensor]:
    """Of one step, by parameter."""
    batch = transform(items, packed)
    model.zero_grad()
    of = losses(model.head, model(batch, with_text=True), batch)
    (of.text / (batch["labels"][:, 1:] >= 0).sum() + of.progress / len(batch["progress"])).backward()
    return {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}


def test_pictures_of_a_size_go_to_sdpa_in_one_call(saved, monkeypatch: pytest.MonkeyPatch) -> None:
    model = ProgressModel(load_backbone(saved.folder), saved.model.head)
    plain, calls = torch.nn.functional.scaled_dot_product_attention, []

    def counted(query: torch.Tensor, *args, **more):
        calls.append(query.shape[0])
        return plain(query, *args, **more)

    monkeypatch.setattr(torch.nn.functional, "scaled_dot_product_attention", counted)
    with torch.inference_mode():
        seen = model.see(normalised(saved.transform.patches([bar(k / 10) for k in range(10)])))
    assert len(seen) == 10
    assert len(calls) == model.backbone.config.vision_config.depth
    assert min(calls) >= 10


@pytest.mark.parametrize("name", ["sdpa", "varlen"])
@pytest.mark.parametrize("half", [False, True])
def test_packed_samples_give_and_teach_what_each_does_alone(
    saved, name: str, half: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = []

    def kernel(q, k, v, begin, also, longest, _, *, scale, window_size) -> torch.Tensor:
        ends = begin.tolist()
        assert q.shape == k.shape == v.shape
        assert q.dtype == k.dtype == v.dtype == (torch.bfloat16 if half else torch.float32)
        assert (begin.dtype, ends[-1], longest) == (torch.int32, len(q), max(b - a for a, b in pairwise(ends)))
        calls.append(window_size)
        return varlen_by_sdpa(q, k, v, begin, scale=scale, window_size=window_size)

    monkeypatch.setattr(attention, "varlen_attn", kernel)
    model, items = ProgressModel(load_backbone(saved.folder, name), saved.model.head), saved.items
    with torch.autocast("cpu", torch.bfloat16, enabled=half):
        logits, progress = outputs(model, saved.transform, items, packed=True)
        alone = [outputs(model, saved.transform, [item], packed=False) for item in items]
        learnt = gradients(model, saved.transform, items, packed=True)
        expected = gradients(model, saved.transform, items, packed=False)
    vision, language = model.backbone.config.vision_config.depth, model.backbone.config.get_text_config()
    of_packed = [(-1, -1)] * vision + [(-1, 0)] * language.num_hidden_layers
    assert calls[: len(of_packed)] == (of_packed if name == "varlen" else [])
    assert torch.allclose(progress, torch.cat([p for _, p in alone]), atol=2e-2 if half else 1e-6)
    assert torch.allclose(logits, torch.cat([of for of, _ in alone]), atol=2e-2 if half else 2e-6)
    for key, value in learnt.items():
        assert torch.allclose(value, expected[key], atol=5e-2 if half else 2e-5), key


def test_the_machine_chooses(monkeypatch: pytest.MonkeyPatch) -> None:
    assert attention.chosen("auto", "bfloat16") == "sdpa"
    there = {2: False, 3: False}
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    for version in there:
        monkeypatch.setattr(attention, f"is_flash_attn_{version}_available", lambda v=version: there[v])
    for capability, installed, dtype, expected in (
        ((7, 5), {2, 3}, "bfloat16", "sdpa"),
        ((8, 0), {2, 3}, "float32", "sdpa"),
        ((8, 0), {2, 3}, "bfloat16", "flash_attention_2"),
        ((9, 0), {2, 3}, "bfloat16", "flash_attention_3"),
        ((9, 0), {2}, "bfloat16", "flash_attention_2"),
        ((9, 0), set(), "bfloat16", "varlen"),
    ):
        monkeypatch.setattr(torch.cuda, "get_device_capability", lambda of=capability: of)
        there.update({version: version in installed for version in there})
        assert attention.chosen("auto", dtype) == expected
        assert attention.chosen("eager", dtype) == "eager"


def test_several_packed_rows_are_refused_where_samples_would_see_each_other(saved) -> None:
    model = ProgressModel(load_backbone(saved.folder), saved.model.head)
    batch = saved.transform(saved.items[:4] * 2, packed=True)
    half = batch["input_ids"].shape[1] // 2
    for key in ("input_ids", "mm_token_type_ids", "labels"):
        batch[key] = batch[key].view(2, half)
    batch["position_ids"] = batch["position_ids"].view(4, 2, half)
    with pytest.raises(FailedError, match="in one row without padding, and was given 2 rows"):
        model(batch)
    set_attention(model.backbone, "eager")
    with torch.inference_mode():
        rows = model(batch).progress
        assert torch.allclose(rows, model(saved.transform(saved.items[:4] * 2)).progress, atol=1e-6)
