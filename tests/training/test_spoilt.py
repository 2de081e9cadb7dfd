"""A loss or a gradient that is no number: the run ends, and the batch that made it is there to be looked at."""

import math
import re
from pathlib import Path
from typing import Any

import cv2
import pytest
import torch

from tests.kits.training_kit import make_items, make_parts, recipe
from training.data import BatchStream, RowSource
from training.errors import TrainingError
from training.loop import Trainer
from training.spoilt import read_spoilt
from warehouse.shards import Sample


def samples(wrong: int | None) -> list[Sample]:
    """Eight, of which one has a label beyond all numbers."""
    found = []
    for k, item in enumerate(make_items()):
        pictures = tuple(cv2.imencode(".png", p[:, :, ::-1])[1].tobytes() for p in item.pictures)
        progress = math.inf if k == wrong else item.progress
        row = {"sample_id": f"s{k}", "question": item.question, "answer": item.answer, "progress": progress}
        found.append(Sample(row, pictures))
    return found


def trainer(wrong: int | None, steps: Path, **more: Any) -> Trainer:
    model, transform = make_parts(make_items())
    of = recipe(train={"batch": 2, "accumulation": 4}, **more)
    return Trainer(model, BatchStream([RowSource(samples(wrong), 8, 0)], transform, of), of, steps=steps)


def stopped(of: Trainer) -> tuple[str, list[Path]]:
    with pytest.raises(TrainingError) as e:
        of.run(lambda point: None, lambda: None)
    told = re.search(r"kept in (\S+\.safetensors)", str(e.value))
    assert told is not None, e.value
    files = sorted(Path(told[1]).parent.glob("*"))
    assert Path(told[1]) == files[0]
    return str(e.value), files


@pytest.mark.parametrize("packing", [False, True])
def test_the_batch_of_a_spoilt_loss_is_kept_with_its_samples(tmp_path: Path, packing: bool) -> None:
    data = {"packing": True, "window": 8, "sequence_length": 120} if packing else {}
    of = trainer(5, tmp_path, data=data)
    before = {name: p.detach().clone() for name, p in of.model.named_parameters()}
    text, files = stopped(of)
    # Packed, the eight samples are fewer batches than a step has, and the sample comes twice.
    assert len(files) == (2 if packing else 1)
    assert text.startswith("the loss is inf at step 0: lower train.lr")
    assert "training.spoilt.read_spoilt reads it" in text
    assert "\n" not in text
    for file in files:
        tensors, facts = read_spoilt(file)
        assert (facts["step"], facts["process"], facts["why"]) == (0, 0, "the loss is inf at step 0")
        assert "s5" in facts["samples"]
        assert len(facts["samples"]) == len(tensors["progress"]) < 8
        at = facts["samples"].index("s5")
        assert torch.isinf(tensors["progress"]).tolist() == [k == at for k in range(len(facts["samples"]))]
        assert {"input_ids", "patches", "image_grid_thw", "labels"} < set(tensors)
    # No weight has moved.
    assert all(torch.equal(p, before[name]) for name, p in of.model.named_parameters())


def test_all_batches_of_a_step_are_kept_where_the_gradient_alone_is_spoilt(tmp_path: Path) -> None:
    of = trainer(None, tmp_path)
    next(of.plain.parameters()).register_hook(lambda gradient: gradient * math.nan)
    text, files = stopped(of)
    assert text.startswith("the norm of the gradient is nan at step 0")
    assert "(and 3 more files beside it)" in text
    shown = [key for file in files for key in read_spoilt(file)[1]["samples"]]
    assert sorted(shown) == [f"s{k}" for k in range(8)]
