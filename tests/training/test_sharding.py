"""Two processes with a part of the model each: batches without pictures, evaluation, a spoilt batch."""

import math
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file

from core.paths import Workspace
from eval.within import scorer_of
from tests.kits.processes import in_two_processes
from tests.kits.progresslm_rows import conversations, source_rows, write_rows
from tests.kits.training_kit import make_items, make_parts, make_release, recipe
from training import train as training
from training.folder import ModelError, TrainingError, read_card
from training.model import save_model
from training.recipe import Recipe
from training.runs import Point, TrainingRun
from training.train import train
from warehouse.lake import Lake
from warehouse.releases.release import Release, get_release

FSDP = {"distributed": "fsdp", "steps": 4, "batch": 1, "accumulation": 1}
EVERY = {"evaluate_every": 2, "evaluate_episodes": 3}


def seen_and_unseen(home: Path, world: int) -> Recipe:
    """Half of the rows have no picture. A step is two batches."""
    train = FSDP | {"accumulation": 2 // world}
    data = {"jsonl": [home / "rows.jsonl"], "image_root": home / "images"}
    return Recipe.model_validate(
        {
            "name": "unseen",
            "model": {"path": home / "start"},
            "head": {},
            "data": data,
            "train": train | {"lr": 1e-3},
        }
    )


def evaluated(world: int, **settings: Any) -> Recipe:
    return recipe("evaluated", train=FSDP | {"accumulation": 2 // world} | settings)


def numbers(points: tuple[Point, ...]) -> list[list[float]]:
    return [[p.loss, p.gradient_norm, p.extra.get("held_out_mae", 0.0)] for p in points]


def stored(run: TrainingRun) -> list[str]:
    """The names of a trained model's weights."""
    return sorted(load_file(run.checkpoint / "model.safetensors"))


def of_two(home: Path) -> dict[str, Any]:
    from accelerate.utils import gather_object

    from training import batches, loop

    rank = int(training.os.environ["RANK"])
    result: dict[str, Any] = {}
    lake = Lake(Workspace(home / "w"))
    release = get_release(lake)
    # Who reads the weights, and which batches show pictures
    read = training.backbones.load_backbone
    has_patches = []

    def reads(*args: Any, **kwargs: Any) -> Any:
        if rank:
            raise ModelError("this process reads the weights")
        return read(*args, **kwargs)

    placed = loop.placed

    def noted(parts: Any, device: Any) -> Any:
        has_patches.append(["patches" in part.batch for part in parts])
        return placed(parts, device)

    training.backbones.load_backbone = reads
    loop.placed = noted
    unseen = train(lake, release, seen_and_unseen(home, 2))
    result["unseen"] = numbers(unseen.curve)
    result["stored"] = stored(unseen)
    result["shown"] = gather_object([has_patches])
    training.backbones.load_backbone = read
    loop.placed = placed

    result["plain"] = numbers(train(lake, release, evaluated(2)).curve)
    run_recipe = evaluated(2, **EVERY)
    run = train(lake, release, run_recipe, scorer=scorer_of(lake, release, run_recipe))
    result["evaluated"] = numbers(run.curve)
    result["best"] = read_card(run.checkpoint.with_name(f"{run.id}.best"))["held_out"]

    # A loss of the second process is none.
    item_of = batches.item_of
    spoils = lambda *args: batches.replace(item_of(*args), progress=math.inf)  # noqa: E731
    if rank:
        batches.item_of = spoils
    try:
        train(lake, release, recipe("spoilt", train=FSDP, data={"cache_mb": 0}))
    except TrainingError as e:
        result["words"] = gather_object([str(e)])
    return result


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> tuple[Path, Lake, Release]:
    home = tmp_path_factory.mktemp("sharding")
    rows = conversations(source_rows(home / "images"))
    for row in rows[::2]:
        row["images"] = []
        row["messages"][0]["content"] = "How far is the bar? Nobody shows it."
    write_rows(home / "rows.jsonl", rows)
    model, transform = make_parts(make_items())
    save_model(model, transform.processor, home / "start", {"max_px": 64})
    lake, release = make_release(home / "w", moments=12, held_out=4)
    return home, lake, release


@pytest.mark.slow
def test_two_processes_with_a_part_each(made):
    home, lake, release = made
    results = in_two_processes(of_two, home)
    # One process had pictures where the other had none, and no one waited: the losses are those of one process.
    first, second = results["shown"]
    assert any(one_run != second_part for one_run, second_part in zip(first, second, strict=True))
    alone = train(lake, release, seen_and_unseen(home, 1))
    for step, expected in zip(results["unseen"], numbers(alone.curve), strict=True):
        assert step == pytest.approx(expected, abs=1e-5)
    # The output layer, which is the embedding of tokens, is stored once
    assert results["stored"] == stored(alone)
    # Evaluation leaves the losses as they are to the last digit, and says what one process would.
    assert [step[:2] for step in results["evaluated"]] == [step[:2] for step in results["plain"]]
    run_recipe = evaluated(1, **EVERY)
    one_run = train(lake, release, run_recipe, scorer=scorer_of(lake, release, run_recipe))
    for step, expected in zip(results["evaluated"], numbers(one_run.curve), strict=True):
        assert step == pytest.approx(expected, abs=1e-5)
    assert results["best"] == pytest.approx(
        read_card(one_run.checkpoint.with_name(f"{one_run.id}.best"))["held_out"], abs=1e-5
    )
    # Both end with the same words, which name samples of the second process alone.
    words, other_words = results["words"]
    assert words == other_words
    assert words.startswith("the loss is inf at step 0")
    sample_names = words.rpartition("Its samples: ")[2].split(", ")
    assert len(sample_names) == FSDP["batch"]
