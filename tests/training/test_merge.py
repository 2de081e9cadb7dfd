"""Adapters merged into their models: the same answers from one folder, whose card says what it was made of."""

from pathlib import Path

import pytest
import torch

from tests.kits.published_kit import published_head, tiny
from training.backbones import add_adapter
from training.errors import ModelError
from training.model import ProgressModel, save_model
from training.published import merge
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


def test_what_cannot_be_merged(adapter: Path, tmp_path: Path) -> None:
    base = adapter.with_name("run.base")
    with pytest.raises(ModelError, match=r"run\.base is no adapter"):
        merge(base, tmp_path / "out")
    (adapter / "adapter_model.safetensors").rename(adapter / "adapter_model.bin")
    with pytest.raises(ModelError, match="lacks adapter_model"):
        merge(adapter, tmp_path / "out")
    assert not (tmp_path / "out").exists()
