"""Each attention that a recipe can name: samples and pictures see nothing of each other, all give the same."""

import json
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from core.errors import FailedError, UserError
from tests.kits.flash_kit import emulate_flash
from tests.kits.training_kit import FAMILIES, bar, make_items, make_parts, recipe
from training.attention import set_attention
from training.backbones import load_backbone
from training.model import ProgressModel, losses, save_model
from training.pictures import Item
from training.recipe import ATTENTIONS, load_recipe
from training.transform import Transform

FLASH = ("flash_attention_2", "flash_attention_3", "kernels-community/flash-attn3")


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
    (of.text / of.tokens + of.progress / of.labels).backward()
    return {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("name", [*ATTENTIONS, *FLASH])
def test_packed_samples_give_what_padded_ones_do(saved, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    emulate_flash(monkeypatch)
    logits, progress = outputs(saved.model, saved.transform, saved.items, packed=False)
    model = ProgressModel(load_backbone(saved.folder, name), saved.model.head)
    for packed in (False, True):
        found = outputs(model, saved.transform, saved.items, packed)
        assert torch.allclose(found[0], logits, atol=1e-5)
        assert torch.allclose(found[1], progress, atol=1e-6)


# One kernel stands for all.
@pytest.mark.parametrize("name", ["sdpa", "flash_attention_2"])
def test_packed_samples_teach_what_padded_ones_do(saved, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    emulate_flash(monkeypatch)
    expected = gradients(saved.model, saved.transform, saved.items, packed=False)
    model = ProgressModel(load_backbone(saved.folder, name), saved.model.head)
    found = gradients(model, saved.transform, saved.items, packed=True)
    assert found.keys() == expected.keys()
    for key, value in found.items():
        assert torch.allclose(value, expected[key], atol=2e-5), key


@pytest.mark.parametrize("name", [*ATTENTIONS, *FLASH])
def test_no_sample_and_no_picture_sees_another(saved, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    emulate_flash(monkeypatch)
    model = ProgressModel(load_backbone(saved.folder, name), saved.model.head)
    other = Item(saved.items[3].question, (255 - bar(0.9),) * len(saved.items[3].pictures), "no", 0.5)
    changed = [*saved.items[:3], other, *saved.items[4:]]
    with torch.inference_mode():
        a, b = (model(saved.transform(items, packed=True)).progress for items in (saved.items, changed))
        pixels = saved.transform.pixels([p for i in saved.items for p in i.pictures])
        here = model.see(pixels)
        pixels["pixel_values"][: here[0].tokens.shape[0] * 4] = 0  # the first picture's patches
        there = model.see(pixels)
    same = (a - b).abs() < 1e-6
    assert same.tolist() == [k != 3 for k in range(len(saved.items))]
    close = [torch.allclose(x.tokens, y.tokens, atol=1e-6) for x, y in zip(here, there, strict=True)]
    assert close == [False] + [True] * (len(here) - 1)


def test_pictures_go_to_a_flash_kernel_in_one_call_for_each_layer(saved, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = emulate_flash(monkeypatch)
    model = ProgressModel(load_backbone(saved.folder, "flash_attention_2"), saved.model.head)
    with torch.inference_mode():
        model(saved.transform(saved.items, packed=True))
    config = model.backbone.config
    assert seen.calls == config.vision_config.depth + config.get_text_config().num_hidden_layers


def test_pictures_of_a_size_go_to_sdpa_in_one_call(saved, monkeypatch: pytest.MonkeyPatch) -> None:
    model = ProgressModel(load_backbone(saved.folder), saved.model.head)
    plain, calls = torch.nn.functional.scaled_dot_product_attention, []

    def counted(query: torch.Tensor, *args, **more):
        calls.append(query.shape[0])
        return plain(query, *args, **more)

    monkeypatch.setattr(torch.nn.functional, "scaled_dot_product_attention", counted)
    with torch.inference_mode():
        seen = model.see(saved.transform.pixels([bar(k / 10) for k in range(10)]))
    assert len(seen) == 10
    assert len(calls) == model.backbone.config.vision_config.depth
    assert min(calls) >= 10


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


@pytest.mark.parametrize("name", ["sdpa", "flash_attention_2"])
def test_half_precision_with_weights_in_float32(saved, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """As it is trained: norms give queries and keys in float32 beside values in bfloat16."""
    emulate_flash(monkeypatch)
    model = ProgressModel(load_backbone(saved.folder, name), saved.model.head)
    with torch.inference_mode():
        exact = model(saved.transform(saved.items)).progress
        with torch.autocast("cpu", torch.bfloat16):
            rough = model(saved.transform(saved.items, packed=True)).progress
    assert torch.allclose(rough, exact, atol=0.02)


def test_a_checkpoint_does_not_keep_what_it_was_trained_with(saved, tmp_path: Path) -> None:
    model = ProgressModel(load_backbone(saved.folder), saved.model.head)
    save_model(model, saved.transform.processor, tmp_path / "m", {})
    assert "blocks" not in (tmp_path / "m" / "config.json").read_text()
    assert json.loads((tmp_path / "m" / "config.json").read_text())["model_type"] == model.backbone.config.model_type


def test_a_recipe_s_attention_is_checked(tmp_path: Path) -> None:
    path = tmp_path / "r.yaml"
    text = "name: r\nmodel: {attention: %s, tiny: {}}\nhead: {}\ntrain: {steps: 1, batch: 1, lr: 1, dtype: %s}\n"
    path.write_text(text % ("flash", "float32"))
    with pytest.raises(UserError, match=r"model.attention: unknown attention 'flash'; known: sdpa, eager"):
        load_recipe(str(path))
    path.write_text(text % ("kernels-community/vllm-flash-attn3", "float32"))
    with pytest.raises(UserError, match=r"calculates in train.dtype: bfloat16 only"):
        load_recipe(str(path))
    path.write_text(text % ("kernels-community/vllm-flash-attn3", "bfloat16"))
    assert load_recipe(str(path)).model.attention == "kernels-community/vllm-flash-attn3"
    assert recipe().model.attention == "sdpa"
