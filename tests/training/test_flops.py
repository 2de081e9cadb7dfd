"""FLOPs as counted against those that torch counts."""

from dataclasses import replace

import pytest
from torch.utils.flop_counter import FlopCounterMode

from tests.kits.training_kit import FAMILIES, make_items, make_parts
from training.backbones import add_adapter
from training.model import ProgressModel, losses
from training.plan import cost
from training.recipe import LoraConfig


@pytest.mark.parametrize("learns", ["nothing", "all", "adapter"])
@pytest.mark.parametrize("family", FAMILIES)
def test_what_is_counted_is_what_torch_counts(family: str, learns: str) -> None:
    item = make_items(3)[2:]
    whole, transform = make_parts(item, family, attention="eager")
    model = ProgressModel(whole.backbone, None)
    model.backbone.requires_grad_(learns == "all")
    if learns == "adapter":
        add_adapter(model.backbone, LoraConfig(rank=4, alpha=8))
    batch = transform(item)
    found = cost(model.backbone)
    # Eager attention calculates what the causal mask then hides.
    found = replace(found, language_attention=2 * found.language_attention)
    with FlopCounterMode(display=False) as counter:
        of = losses(None, model(batch, with_text=True), batch)
        if learns != "nothing":
            of.text.backward()
    assert found.of(batch) == pytest.approx(counter.get_total_flops(), rel=0.03)
