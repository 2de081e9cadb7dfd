"""Kernels that replace parts of a model: asked for by the recipe, told where they are missing."""

import sys
from pathlib import Path

import pytest
import torch

from tests.kits.training_kit import make_items, make_parts, make_release, recipe
from training.backbones import use_liger
from training.errors import ModelError
from training.train import start_model, train

# As much of liger-kernel as is used: its norms are torch's own, and say that they were run.
STAND_IN = """
import torch
RUN = []
def _to_qwen3_vl(rope=True, cross_entropy=False, fused_linear_cross_entropy=True, rms_norm=True, model=None):
    assert not (rope or cross_entropy or fused_linear_cross_entropy) and rms_norm
    for module in model.modules():
        if type(module).__name__.endswith("RMSNorm"):
            def forward(states, module=module):
                RUN.append(module)
                return torch.nn.functional.rms_norm(states, states.shape[-1:], module.weight, module.variance_epsilon)
            module.forward = forward
MODEL_TYPE_TO_APPLY_LIGER_FN = {"qwen3_vl": _to_qwen3_vl}
"""


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "liger_kernel" / "transformers"
    package.mkdir(parents=True)
    for folder in (package, package.parent):
        (folder / "__init__.py").touch()
    (package / "monkey_patch.py").write_text(STAND_IN)
    monkeypatch.syspath_prepend(tmp_path)
    for name in ("liger_kernel", "liger_kernel.transformers", "liger_kernel.transformers.monkey_patch"):
        monkeypatch.setitem(sys.modules, name, None)  # so that what is imported is taken away afterwards
        del sys.modules[name]


def test_liger_takes_the_place_of_norms_and_the_loss_stays(installed: None, monkeypatch: pytest.MonkeyPatch) -> None:
    items = make_items(4)
    model, transform = make_parts(items)
    batch = transform(items)
    with torch.inference_mode():
        before = model(batch).progress
    with monkeypatch.context() as patch:
        patch.setattr(torch.cuda, "is_available", lambda: True)
        use_liger(model.backbone)
    from liger_kernel.transformers import monkey_patch  # type: ignore[import-not-found]

    with torch.inference_mode():
        after = model(batch).progress
    assert monkey_patch.RUN
    assert after.tolist() == pytest.approx(before.tolist(), abs=1e-5)


def test_the_recipe_asks_for_liger(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lake, release = make_release(tmp_path / "w")
    of = recipe("liger")
    of = of.model_copy(update={"model": of.model.model_copy(update={"liger": True})})
    with pytest.raises(ModelError, match=r"^model.liger needs a GPU and liger-kernel \(uv pip install liger-kernel\)"):
        train(lake, release, of)
    asked = []
    monkeypatch.setattr("training.train.use_liger", asked.append)
    model, _ = start_model(of, tmp_path / "m", ["a bar"])
    assert asked == [model.backbone]


def test_a_model_that_liger_does_not_know_is_told(installed: None, monkeypatch: pytest.MonkeyPatch) -> None:
    model, _ = make_parts(make_items(), "qwen2_5_vl")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    with pytest.raises(
        ModelError, match=r"the liger-kernel that is installed has nothing for qwen2_5_vl: leave it out"
    ):
        use_liger(model.backbone)
