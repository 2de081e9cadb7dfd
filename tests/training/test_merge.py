"""Adapters merged into their models: the same answers from one folder, whose card says what it was made of."""

from pathlib import Path

import pytest
import torch

from tests.kits.published_kit import answers, published_head, tiny
from training.backbones import add_adapter
from training.errors import ModelError
from training.folder import adapters, checkpoints
from training.merge import merge, weights_hash
from training.model import ProgressModel, load_model, save_model
from training.recipe import LoraConfig


@pytest.fixture(params=["qwen3_vl", "qwen2_5_vl"])
def adapter(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """models/run, an adapter of our own with a head, for models/run.base."""
    backbone, processor = tiny(request.param)
    base = tmp_path / "models" / "run.base"
    save_model(ProgressModel(backbone, None), processor, base, {"head": None})
    backbone.name_or_path = str(base)
    add_adapter(backbone, LoraConfig(rank=4, alpha=8))
    torch.manual_seed(3)
    for name, parameter in backbone.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.1)
    folder = tmp_path / "models" / "run"
    card = {"base": str(base), "training_run": "run", "max_px": 64}
    save_model(ProgressModel(backbone, published_head()), processor, folder, card)
    return folder


def test_a_merged_model_answers_as_the_adapter_does(adapter: Path) -> None:
    out = adapter.with_name("run.merged")
    card = merge(adapter, out)
    model, processor, read = load_model(out)
    apart, _, _ = load_model(adapter)
    for mine, theirs in zip(answers(model, processor), answers(apart, processor), strict=True):
        torch.testing.assert_close(mine, theirs, atol=1e-5, rtol=1e-5)
    plain, _, _ = load_model(adapter.with_name("run.base"))
    assert not torch.allclose(answers(model, processor)[1], answers(plain, processor)[1], atol=1e-3)
    assert {p.suffix for p in out.iterdir()} == {".json", ".safetensors"}
    assert not list(out.glob("adapter*"))
    assert read == card
    assert read["training_run"] == "run"
    assert "base" not in read
    base = adapter.with_name("run.base")
    assert read["merged"] == {
        "adapter": "run",
        "adapter_sha256": weights_hash(adapter),
        "base": "run.base",
        "base_sha256": weights_hash(base),
    }
    assert adapters(adapter.parent) == [adapter]
    assert checkpoints(adapter.parent) == [adapter, base, out]


def test_what_cannot_be_merged(adapter: Path, tmp_path: Path) -> None:
    base = adapter.with_name("run.base")
    with pytest.raises(ModelError, match=r"run\.base is no adapter"):
        merge(base, tmp_path / "out")
    (adapter / "adapter_model.safetensors").rename(adapter / "adapter_model.bin")
    with pytest.raises(ModelError, match="lacks adapter_model"):
        merge(adapter, tmp_path / "out")
    assert not (tmp_path / "out").exists()
