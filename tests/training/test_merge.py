"""Adapters merged into their models: the same answers from one folder, whose card says what it was made of."""

from pathlib import Path

import pytest

from tests.kits.published_kit import write_adapter
from training.errors import ModelError
from training.published import merge


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
