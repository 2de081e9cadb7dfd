"""What `train --plan` says: of a model of known size all that training.plan reckons; of a laptop model, for which every
machine has room, its own few figures; and of a recipe that names no size what it says itself."""

from typing import Any

import numpy as np

from annotate.embeddings import missing_download
from annotate.embeddings.encoders import load_encoder
from training.folder import is_laptop
from training.laptop.model import LaptopModel, embed, load_laptop
from training.plan import SIZES, Machine, plan_on
from training.recipe import OF_LAPTOPS, Recipe

KB = 10**3
MB = 10**6
BYTES_OF_NUMBER = 2  # of an embedding that training keeps
STATE = 16  # bytes of a parameter that learns: weight, gradient and two of the optimizer
NOT_KNOWN = "not known: --model PATH says it, of a checkpoint"


def plan_facts(recipe: Recipe, machine: str | None) -> tuple[dict[str, Any], bool]:
    """For people, in a table; and does the recipe fit the machine, as far as is known? Raises what `plan_on` and
    `load_encoder` raise."""
    if machine is not None:
        Machine.named(machine)  # a wrong one is refused whatever the recipe
    path = recipe.model.path
    begins_with_laptop = path is not None and is_laptop(path)
    if recipe.model.laptop or recipe.name == OF_LAPTOPS or begins_with_laptop:
        return _of_laptop(recipe), True
    if not _has_size(recipe):
        return _of_recipe(recipe), True
    machine_plan = plan_on(recipe, machine)
    return machine_plan.facts(), machine_plan.wrong() is None


def _has_size(recipe: Recipe) -> bool:
    if recipe.model.tiny or recipe.model.path:
        return True
    return any(folder.name in recipe.model.base for folder in SIZES.iterdir())


def _of_recipe(recipe: Recipe) -> dict[str, Any]:
    train = recipe.train
    return {
        "parameters": NOT_KNOWN,
        "rows a step of one GPU": train.batch * train.accumulation,
        "tokens a step of one GPU, at most": train.batch
        * train.accumulation
        * recipe.data.sequence_length,
        "steps": train.steps or f"by train.epochs ({train.epochs}), of the release's rows",
        "fits": NOT_KNOWN,
    }


def _of_laptop(recipe: Recipe) -> dict[str, Any]:
    model, why_not = _laptop_model(recipe)
    sizes: dict[str, Any] = {"parameters": why_not}
    if model is not None:
        learning = sum(p.numel() for p in model.parameters() if p.requires_grad)
        sizes = {
            "encoder, which does not learn": model.config.encoder,
            "parameters that learn": learning,
            "MB of weights, gradients and optimizer": round(STATE * learning / MB, 1),
            "kB kept of each picture": round(
                BYTES_OF_NUMBER * model.width * model.config.views / KB, 1
            ),
        }
    steps = {"windows a step": recipe.train.batch, "steps": recipe.train.steps}
    return (
        {"machine": "a CPU; a GPU where there is one"}
        | sizes
        | steps
        | {"fits": "yes: laptop models are small"}
    )


def _laptop_model(recipe: Recipe) -> tuple[LaptopModel | None, str]:
    """The model that a recipe begins with, or why it cannot be known here."""
    if recipe.model.path is not None:
        return load_laptop(recipe.model.path)[0], ""
    config = recipe.model.laptop
    if config is None:
        return None, NOT_KNOWN
    if missing := missing_download(config.embeddings):
        return None, f"not known here: {missing}"
    black = np.zeros((64, 64, 3), np.uint8)
    width = embed(load_encoder(config.embeddings), [black]).shape[1]
    return LaptopModel(config, width, config.most_frames), ""
