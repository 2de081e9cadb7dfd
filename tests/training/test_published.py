"""Published checkpoints in small: each layout becomes one of ours that answers the same; what is wrong is named."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import peft
import pytest
import torch

from tests.kits.files import Trap
from tests.kits.published_kit import (
    all_weights,
    answers,
    head_weights,
    published_head,
    tiny,
    write_adapter,
    write_plain,
    write_safetensors,
    write_sharded,
)
from training.folder import ModelError
from training.model import ProgressModel, load_model
from training.published import convert, merge, read_weights


def new_layout(folder: Path, backbone: Any) -> None:
    torch.save(all_weights(backbone), folder / "pytorch_model.bin")
    (folder / "procvlm_extra").mkdir()
    torch.save(head_weights(published_head()), folder / "procvlm_extra" / "procvlm_head.pt")


def beside(name: str) -> Callable[[Path, Any], None]:
    def write(folder: Path, backbone: Any) -> None:
        write_safetensors(folder, all_weights(backbone))
        torch.save(head_weights(published_head()), folder / name)

    return write


def legacy(prefix: str) -> Callable[[Path, Any], None]:
    def write(folder: Path, backbone: Any) -> None:
        weights = {prefix + k: v for k, v in all_weights(backbone).items()}
        torch.save(weights | head_weights(published_head(), prefix), folder / "procvlm_model.bin")

    return write


def sharded(folder: Path, backbone: Any) -> None:
    write_sharded(folder, all_weights(backbone) | head_weights(published_head()))


@pytest.mark.parametrize(
    "write",
    [
        new_layout,
        beside("procvlm_head.pt"),
        beside("procvlm_head.bin"),
        legacy("base_model."),
        legacy("model."),
        sharded,
    ],
    ids=["new", "pt", "bin", "base_model", "model.model", "sharded"],
)
def test_procvlm_with_its_head(write: Callable, tmp_path: Path) -> None:
    backbone, processor = tiny()
    write(write_plain(tmp_path / "ProcVLM-2B", backbone, processor), backbone)
    card = convert(tmp_path / "ProcVLM-2B", tmp_path / "out")
    model, loaded, read = load_model(tmp_path / "out")
    assert {p.suffix for p in (tmp_path / "out").iterdir()} == {".json", ".safetensors"}
    expected = answers(ProgressModel(backbone, published_head()), processor)
    for mine, theirs in zip(answers(model, loaded), expected, strict=True):
        torch.testing.assert_close(mine, theirs)
    assert read == card
    assert card["converted_from"] == "ProcVLM-2B"
    assert card["head"]["pooling"] == "published"
    assert all(len(h) == 64 for h in card["files"].values())


def old_names(weights: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """As transformers named Qwen2.5-VL's weights before 4.52, and as ProgressLM's files have them."""
    return {
        k.replace("model.visual.", "visual.").replace("model.language_model.", "model."): v
        for k, v in weights.items()
    }


@pytest.mark.parametrize("names", [dict, old_names])
def test_progresslm_is_a_model_without_a_head(names: Callable, tmp_path: Path) -> None:
    backbone, processor = tiny("qwen2_5_vl")
    folder = write_plain(tmp_path / "ProgressLM-3B-RL", backbone, processor)
    write_safetensors(folder, names(all_weights(backbone)))
    assert convert(folder, tmp_path / "out")["head"] is None
    model, loaded, _ = load_model(tmp_path / "out")
    progress, logits = answers(model, loaded)
    assert progress.isnan().all()
    torch.testing.assert_close(logits, answers(ProgressModel(backbone, None), processor)[1])


def adapted(folder: Path, base: Path) -> Any:
    """A PEFT adapter in a folder, as peft saves it; returns the model that it makes."""
    backbone, _ = tiny()
    backbone.name_or_path = str(base)
    settings = peft.LoraConfig(r=4, target_modules=["q_proj", "v_proj"])
    torch.manual_seed(2)
    peft_model = peft.get_peft_model(backbone, settings)
    for name, parameter in peft_model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.1)
    peft_model.save_pretrained(str(folder))
    return peft_model.merge_and_unload()


@pytest.mark.parametrize("pickled", [False, True])
def test_an_adapter_with_its_head(pickled: bool, tmp_path: Path) -> None:
    backbone, processor = tiny()
    base = write_plain(tmp_path / "base", backbone, processor)
    write_safetensors(base, all_weights(backbone))
    folder = tmp_path / "lora"
    whole = adapted(folder, base)
    if pickled:
        torch.save(read_weights(folder / "adapter_model.safetensors"), folder / "adapter_model.bin")
        (folder / "adapter_model.safetensors").unlink()
    torch.save(head_weights(published_head(), "base_model.model."), folder / "procvlm_head.bin")
    card = convert(folder, tmp_path / "out")
    model, loaded, _ = load_model(tmp_path / "out")
    for mine, theirs in zip(
        answers(model, loaded),
        answers(ProgressModel(whole, published_head()), processor),
        strict=True,
    ):
        torch.testing.assert_close(mine, theirs, atol=1e-5, rtol=1e-5)
    assert sorted(card["files"]) == [
        f"adapter_model.{'bin' if pickled else 'safetensors'}",
        "procvlm_head.bin",
    ]


def test_an_adapter_without_its_base(tmp_path: Path) -> None:
    adapted(tmp_path / "lora", Path("Qwen/Qwen3-VL-2B-Instruct"))
    with pytest.raises(ModelError, match="an adapter for Qwen/Qwen3-VL-2B-Instruct: say --base"):
        convert(tmp_path / "lora", tmp_path / "out")
    backbone, processor = tiny("qwen2_5_vl")  # has no weight of such a name
    other_model = write_plain(tmp_path / "other", backbone, processor)
    write_safetensors(other_model, all_weights(backbone))
    weights = tmp_path / "lora" / "adapter_model.safetensors"
    torch.save(
        read_weights(weights) | {"base_model.model.x.lora_A.weight": torch.ones(2)},
        weights.with_suffix(".bin"),
    )
    weights.unlink()
    with pytest.raises(
        ModelError,
        match=r"weights that we do not know: model.language_model.x.lora_A|do not know: x.lora_A",
    ):
        convert(tmp_path / "lora", tmp_path / "out", other_model)


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    backbone, processor = tiny()
    folder = write_plain(tmp_path / "in", backbone, processor)
    new_layout(folder, backbone)
    return folder


@pytest.mark.parametrize("file", ["pytorch_model.bin", "procvlm_extra/procvlm_head.pt"])
def test_a_pickle_with_code_is_not_run(file: str, checkpoint: Path, tmp_path: Path) -> None:
    torch.save({"x": Trap(tmp_path / "trap")}, checkpoint / file)
    with pytest.raises(
        ModelError, match=r"is not loaded: it holds more than weights \(\w*\.mkdir\)"
    ) as refused:
        convert(checkpoint, tmp_path / "out")
    assert "\n" not in str(refused.value)
    assert not (tmp_path / "trap").exists()
    assert not (tmp_path / "out").exists()


def change(path: Path, edit: Callable[[dict], None]) -> None:
    weights = torch.load(path, weights_only=True)
    edit(weights)
    torch.save(weights, path)


def test_missing_and_unknown_weights_are_named(checkpoint: Path, tmp_path: Path) -> None:
    whole = checkpoint / "pytorch_model.bin"
    change(whole, lambda w: w.pop("model.language_model.layers.1.self_attn.q_proj.weight"))
    with pytest.raises(
        ModelError,
        match=r"lacks the weights model.language_model.layers.1.self_attn.q_proj.weight$",
    ):
        convert(checkpoint, tmp_path / "out")
    change(
        whole,
        lambda w: w.update(
            {"model.language_model.layers.1.self_attn.q_proj.weight": torch.ones(2, 2)}
        ),
    )
    with pytest.raises(ModelError, match=r"the weights of .* cannot be used"):
        convert(checkpoint, tmp_path / "out")
    torch.save(all_weights(tiny()[0]) | {"model.extra.weight": torch.ones(2)}, whole)
    with pytest.raises(ModelError, match=r"has weights that we do not know: model.extra.weight$"):
        convert(checkpoint, tmp_path / "out")


@pytest.mark.parametrize(
    ("how", "message"),
    [
        (lambda w: w.pop("value_head.2.bias"), "lacks the weights value_head.2.bias$"),
        (lambda w: w.update(x=torch.ones(1)), "do not know: x$"),
        (
            lambda w: w.update({"value_head.8.bias": torch.ones(3)}),
            "has another shape: .*value_head.8.bias",
        ),
        (lambda w: w.clear(), "holds no progress head"),
    ],
)
def test_a_head_that_is_another(
    how: Callable, message: str, checkpoint: Path, tmp_path: Path
) -> None:
    change(checkpoint / "procvlm_extra" / "procvlm_head.pt", how)
    with pytest.raises(ModelError, match=message):
        convert(checkpoint, tmp_path / "out")


def test_what_is_no_checkpoint(checkpoint: Path, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="there is no folder"):
        convert(tmp_path / "none", tmp_path / "out")
    (tmp_path / "out").mkdir()
    with pytest.raises(ModelError, match="out exists"):
        convert(checkpoint, tmp_path / "out")
    (tmp_path / "out").rmdir()
    (checkpoint / "pytorch_model.bin").write_bytes(b"PK nothing")
    with pytest.raises(ModelError, match="pytorch_model"):
        convert(checkpoint, tmp_path / "out")
    (checkpoint / "pytorch_model.bin").unlink()
    index = checkpoint / "pytorch_model.bin.index.json"
    index.write_text(json.dumps({"weight_map": {"x": "../../other.bin"}}))
    with pytest.raises(ModelError, match="names a file outside of its folder"):
        convert(checkpoint, tmp_path / "out")
    index.unlink()
    with pytest.raises(ModelError, match="has no weights"):
        convert(checkpoint, tmp_path / "out")


@pytest.mark.parametrize("family", ["qwen3_vl", "qwen2_5_vl"])
def test_what_cannot_be_merged(family: str, tmp_path: Path) -> None:
    adapter = write_adapter(tmp_path / "models", family=family)
    base = adapter.with_name("base")
    with pytest.raises(ModelError, match=r"base is no adapter"):
        merge(base, tmp_path / "out")
    (adapter / "adapter_model.safetensors").rename(adapter / "adapter_model.bin")
    with pytest.raises(ModelError, match="lacks adapter_model"):
        merge(adapter, tmp_path / "out")
    assert not (tmp_path / "out").exists()
