"""From one labelled episode to an adapter: its error there falls."""

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from eval.reward.laptop import LaptopRunner
from eval.reward.stream import StreamPicture
from eval.runners.prompt import Asked, Prompt
from pipeline.models import model_folder
from pipeline.reward_model import episode_samples
from tests.kits import laptop_kit
from tests.kits.made_corpus import Made
from tests.kits.training_kit import recipe
from training.data import item_of
from training.laptop.model import load_laptop
from training.model import load_model
from training.recipe import adapting_recipe, load_recipe
from training.train import adapt, train
from training.trained_on import ids_of
from training.transform import Transform
from warehouse.lake import Lake
from warehouse.releases.release import local_release
from warehouse.shards.shard import Sample

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def lake(made: Made, tmp_path_factory) -> Iterator[Lake]:
    adapted_lake = Lake(made.copy(tmp_path_factory.mktemp("adapted")).space)
    yield adapted_lake
    adapted_lake.con.close()


@pytest.fixture(scope="module")
def samples(lake: Lake) -> list[Sample]:
    return episode_samples(lake, "tiny", 1, 240)


def error(folder: Path, samples: list[Sample]) -> float:
    model, processor, _ = load_model(folder)
    with torch.inference_mode():
        progress = model(Transform(processor)([item_of(s, 64) for s in samples])).progress
    return float(np.mean(np.abs(progress.numpy() - [s.row["progress"] for s in samples])))


def test_the_error_on_the_episode_falls(lake, samples):
    base = train(lake, local_release(lake), recipe("start", train={"steps": 2}))
    assert (
        model_folder(lake.workspace, base.id)
        == model_folder(lake.workspace, str(base.checkpoint))
        == base.checkpoint
    )
    run = adapt(lake, samples, "tiny-000001", load_recipe("tiny_oneshot", base.checkpoint))
    error_before = error(base.checkpoint, samples)
    error_after = error(run.checkpoint, samples)
    assert error_after < 0.9 * error_before
    names = {p.name for p in run.checkpoint.iterdir()}
    assert {"adapter_model.safetensors", "progress_head.safetensors"} <= names
    assert "model.safetensors" not in names
    card = json.loads((run.checkpoint / "card.json").read_text())
    assert (card["adapted_to"], card["base"]) == ("tiny-000001", base.id)
    assert run.curve[0].progress == pytest.approx(error_before, abs=0.25), (
        "the head goes on from the model's own"
    )
    assert lake.rows("SELECT path FROM checkpoints WHERE training_run = ?", [run.id]) == [
        (f"models/{run.id}",)
    ]


def laptop_error(folder: Path, samples: list[Sample]) -> float:
    items = [item_of(s, 256) for s in samples]
    requests = [
        Asked(Prompt("", i.question, ()), tuple(map(StreamPicture, i.pictures))) for i in items
    ]
    rewards = LaptopRunner(folder, len(items)).ask(requests)
    return float(
        np.mean(
            np.abs(np.array([r.progress for r in rewards]) - [s.row["progress"] for s in samples])
        )
    )


def test_a_laptop_model_goes_on_from_its_own_weights(lake, samples):
    start = laptop_kit.recipe(train={"steps": 2, "batch": 8, "lr": 1e-3})
    base = train(lake, local_release(lake), start)
    adapting = load_recipe(adapting_recipe(base.checkpoint), base.checkpoint)
    run = adapt(lake, samples, "tiny-000001", adapting)
    error_before = laptop_error(base.checkpoint, samples)
    error_after = laptop_error(run.checkpoint, samples)
    assert error_after < 0.7 * error_before, (error_before, error_after)
    card, base_card = (
        json.loads((folder / "card.json").read_text())
        for folder in (run.checkpoint, base.checkpoint)
    )
    assert (card["adapted_to"], card["adapted_from"], card["runs"]) == (
        "tiny-000001",
        base.id,
        base_card["runs"],
    )
    assert (card["window"], card["max_px"]) == (base_card["window"], base_card["max_px"])
    # It saw what its base saw, and the episode
    of_episode = set().union(*ids_of(lake, [("tiny", 1)]).values())
    assert set(card["trained_on"]["ids"]) == {*base_card["trained_on"]["ids"], *of_episode}
    assert card["trained_on"]["is_all"]
    assert card["negatives"]["rewound"] > 0
    assert lake.rows("SELECT path FROM checkpoints WHERE training_run = ?", [run.id]) == [
        (f"models/{run.id}",)
    ]
    assert len(load_laptop(run.checkpoint)[0].ood.learnt)
