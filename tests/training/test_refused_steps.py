"""A loss or a gradient that is no number: the run ends, and names the samples that made it."""

import math
from typing import Any

import cv2
import pytest

from tests.kits.training_kit import make_items, make_parts, recipe
from training.batches import BatchStream
from training.data import RowSource
from training.errors import TrainingError
from training.loop import Trainer
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


def trainer(wrong: int | None, **more: Any) -> Trainer:
    model, transform = make_parts(make_items())
    of = recipe(train={"batch": 2, "accumulation": 4}, **more)
    return Trainer(model, BatchStream([RowSource(samples(wrong), 8, 0)], transform, of), of)


def stopped(of: Trainer) -> str:
    with pytest.raises(TrainingError) as e:
        of.run(lambda point: None, lambda: None)
    assert "\n" not in str(e.value)
    return str(e.value)


def test_all_samples_of_a_step_are_named_where_the_gradient_alone_is_none() -> None:
    of = trainer(None)
    next(of.plain.parameters()).register_hook(lambda gradient: gradient * math.nan)
    text = stopped(of)
    assert text.startswith("the norm of the gradient is nan at step 0")
    assert text.endswith("Its samples: " + ", ".join(f"s{k}" for k in range(8)))
