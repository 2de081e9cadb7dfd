"""One-shot adaptation: from the samples of one labelled episode to an adapter of a model that is there, or, of the kind
`laptop`, to a model of its own."""

import json
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from training.errors import TrainingError
from training.folder import read_card, write_card
from training.laptop.kind import is_laptop
from training.loop import Point
from training.model import HEAD_CONFIG
from training.progresslm_data import write_conversations
from training.recipe import OF_LAPTOPS, HeadConfig, Recipe
from training.train import TrainingRun, keep_laptop, train
from warehouse.lake import Lake, content_key
from warehouse.releases import Release
from warehouse.shards import Sample

NOTHING = "there is nothing to learn from {}: it has no moment with a label and pictures"


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
    if recipe.model.path is not None and is_laptop(recipe.model.path):
        return _adapt_laptop(lake, samples, subject, recipe, on_step, resume)
    if recipe.model.path is None or recipe.lora is None:
        raise TrainingError(f"recipe {recipe.name} is not for adaptation: it needs a checkpoint and a section lora")
    if recipe.data.negatives.total:
        raise TrainingError(f"recipe {recipe.name} has data.negatives: one episode has no other tasks; leave them out")
    if not samples:
        raise TrainingError(NOTHING.format(subject))
    folder = lake.workspace.root / "models" / f"{subject}.rows"
    told = ((s, s.row["answer"], {"progress": s.row["progress"]}) for s in samples)
    data = recipe.data.model_copy(update={"jsonl": (write_conversations(told, folder),), "image_root": folder})
    recipe = recipe.model_copy(update={"data": data, "head": _own_head(recipe.model.path, recipe.head)})
    run = train(lake, _as_release(lake, samples, subject), recipe, on_step, resume)
    write_card(run.checkpoint, read_card(run.checkpoint) | {"adapted_to": subject})
    return run


def _adapt_laptop(
    lake: Lake,
    samples: Sequence[Sample],
    subject: str,
    recipe: Recipe,
    on_step: Callable[[Point], None],
    resume: bool,
) -> TrainingRun:
    from training.laptop.fit import fit_to_episode

    folder = recipe.model.path
    assert folder is not None, "the caller looks"
    if recipe.lora or recipe.head:
        raise TrainingError(
            f"{folder.name} is a laptop model, which has heads of its own and no adapters: take the recipe {OF_LAPTOPS}"
        )
    if resume:
        raise TrainingError("a laptop model trains in seconds, and keeps nothing to go on from: leave out --resume")
    if not samples:
        raise TrainingError(NOTHING.format(subject))
    started, before = time.monotonic(), read_card(folder)
    fitted = fit_to_episode(lake, folder, samples, recipe, on_step)
    # Its windows are laid out as before. From which output on a run is done was found for other weights
    kept = {name: before.get(name) for name in ("window", "max_px")}
    more = kept | {"adapted_to": subject, "adapted_from": folder.name}
    return keep_laptop(lake, _as_release(lake, samples, subject), recipe, fitted, started, more)


def _as_release(lake: Lake, samples: Sequence[Sample], subject: str) -> Release:
    """What a run is recorded to have learnt from: equal for equal samples."""
    shown = content_key(*(json.dumps(dict(s.row), sort_keys=True, default=str) for s in samples))
    return Release(subject, lake.snapshot(), shown, ())


def _own_head(model: Path, wanted: HeadConfig | None) -> HeadConfig | None:
    """The recipe's head, but of the kind that the model has."""
    if wanted is None or not (model / HEAD_CONFIG).exists():
        return wanted
    kept = json.loads((model / HEAD_CONFIG).read_text())
    same = {k: kept[k] for k in ("pooling", "loss", "bins") if k in kept}
    return HeadConfig(**wanted.model_dump() | same)
