"""One-shot adaptation: from the samples of one labelled episode to an adapter of a model that is there, or, of the kind
`laptop`, to a model of its own."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path

from training.errors import TrainingError
from training.folder import is_laptop, read_card, write_card
from training.laptop.fit import adapt_laptop
from training.model import HEAD_CONFIG
from training.points import Point
from training.progresslm_data import write_conversations
from training.recipe import OF_LAPTOPS, HeadConfig, Recipe
from training.runs import TrainingRun
from training.train import train
from warehouse.lake import Lake, content_key
from warehouse.releases import Release
from warehouse.shards import Sample


def adapt(
    lake: Lake,
    samples: Sequence[Sample],
    subject: str,
    recipe: Recipe,
    on_step: Callable[[Point], None] = lambda point: None,
    resume: bool = False,
) -> TrainingRun:
    """Train the recipe, whose model.path is the model to adapt, on samples of one episode, called `subject`.

    They are kept beside the run, in `models/<subject>.rows`. A head goes on from the model's own, of any kind.
    A laptop model, which has no adapters, learns with all of its weights. Raises TrainingError, ModelError, and of a
    laptop model EncoderError.
    """
    model, head, for_laptop = _model_to_adapt(recipe)
    if not samples:
        raise TrainingError(f"there is nothing to learn from {subject}: it has no moment with a label and pictures")
    # What the run is recorded to have learnt from: equal for equal samples
    shown = content_key(*(json.dumps(dict(s.row), sort_keys=True, default=str) for s in samples))
    release = Release(subject, lake.snapshot(), shown, ())
    if for_laptop:
        return adapt_laptop(lake, model, samples, release, recipe, on_step, resume)
    folder = lake.workspace.root / "models" / f"{subject}.rows"
    told = ((s, s.row["answer"], {"progress": s.row["progress"]}) for s in samples)
    data = recipe.data.model_copy(update={"jsonl": (write_conversations(told, folder),), "image_root": folder})
    if head is not None and (model / HEAD_CONFIG).exists():
        head = head.model_copy(update={"pooling": json.loads((model / HEAD_CONFIG).read_text())["pooling"]})
    run = train(lake, release, recipe.model_copy(update={"data": data, "head": head}), on_step, resume)
    write_card(run.checkpoint, read_card(run.checkpoint) | {"adapted_to": subject})
    return run


def _model_to_adapt(recipe: Recipe) -> tuple[Path, HeadConfig | None, bool]:
    """The recipe's model and head, and whether it is a laptop model. Raises TrainingError where the recipe is not for
    it."""
    model = recipe.model.path
    for_laptop = model is not None and is_laptop(model)
    if model is None or not (for_laptop or recipe.lora):
        raise TrainingError(f"recipe {recipe.name} is not for adaptation: it needs a checkpoint and a section lora")
    if for_laptop and (recipe.lora or recipe.head):
        raise TrainingError(
            f"{model.name} is a laptop model, which has heads of its own and no adapters: take the recipe {OF_LAPTOPS}"
        )
    if not for_laptop and recipe.data.negatives.total:
        raise TrainingError(f"recipe {recipe.name} has data.negatives: one episode has no other tasks; leave them out")
    return model, recipe.head, for_laptop
