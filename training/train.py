"""Training: from a release's shards to a checkpoint, recorded in the lake."""

import hashlib
import json
import math
import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import torch

from training.data import batches, items_of_shards
from training.model import ProgressHead, ProgressModel, losses, save_model
from training.recipe import Recipe
from training.tiny import make_backbone, make_processor, make_tokenizer
from training.transform import Transform
from warehouse.lake import Lake
from warehouse.releases import Release
from warehouse.tables import TABLES

CODE_VERSION = "training-1"


class TrainingError(Exception):
    """A training run that cannot start or has gone wrong."""


@dataclass(frozen=True)
class Point:
    """One training step: weighted loss, cross entropy of the answers, mean absolute progress error of the batch."""

    step: int
    loss: float
    text: float
    progress: float
    learning_rate: float


@dataclass(frozen=True)
class TrainingRun:
    id: str
    checkpoint: Path
    curve: tuple[Point, ...]
    parameters: int
    items: int
    seconds: float


def training_run_id(recipe: Recipe, release: Release) -> str:
    """Equal for equal recipe, release content and code."""
    text = "\0".join([recipe.model_dump_json(), release.config_hash, CODE_VERSION])
    return f"{recipe.name}-{release.name}-{hashlib.sha256(text.encode()).hexdigest()[:8]}"


def fit(
    model: ProgressModel,
    transform: Transform,
    items: Sequence,
    recipe: Recipe,
    on_step: Callable[[Point], None] = lambda point: None,
) -> list[Point]:
    """Train in place; AdamW with warm-up and cosine decay. Raises TrainingError when the loss is not finite."""
    rng = np.random.default_rng(recipe.seed)
    torch.manual_seed(recipe.seed)
    decay = [p for p in model.parameters() if p.ndim >= 2]
    rest = [p for p in model.parameters() if p.ndim < 2]
    groups = [{"params": decay, "weight_decay": recipe.weight_decay}, {"params": rest, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=recipe.learning_rate, betas=(0.9, 0.98))
    curve = []
    model.train()
    for step, chosen in zip(range(recipe.steps), batches(items, recipe.batch_size, rng, recipe.augment), strict=False):
        rate = recipe.learning_rate * schedule(step, recipe)
        for group in optimizer.param_groups:
            group["lr"] = rate
        batch = transform(chosen)
        loss = losses(model(batch, recipe.text_weight > 0), batch, recipe.text_weight, recipe.progress_weight)
        if not torch.isfinite(loss.total):
            raise TrainingError(f"the loss is {loss.total.item()} at step {step}: lower learning_rate in the recipe")
        optimizer.zero_grad(set_to_none=True)
        loss.total.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        curve.append(Point(step, loss.total.item(), loss.text.item(), loss.progress.item(), rate))
        on_step(curve[-1])
    model.eval()
    return curve


def schedule(step: int, recipe: Recipe) -> float:
    """Share of the learning rate at a step: linear warm-up, then cosine to 0."""
    if step < recipe.warmup_steps:
        return (step + 1) / recipe.warmup_steps
    done = (step - recipe.warmup_steps) / max(1, recipe.steps - recipe.warmup_steps)
    return 0.5 * (1 + math.cos(math.pi * done))


def train(
    lake: Lake, release: Release, recipe: Recipe, on_step: Callable[[Point], None] = lambda point: None
) -> TrainingRun:
    """Train on the train split of a release, save the checkpoint, record run and checkpoint.

    The checkpoint folder appears whole or not at all. Raises TrainingError or ShardError.
    """
    started = time.monotonic()
    paths = release.paths(lake.workspace, "train")
    items = items_of_shards(paths, recipe.families, recipe.model.max_px)
    if not items:
        raise TrainingError(f"release {release.name} has no train samples of the families {', '.join(recipe.families)}")
    tokenizer = make_tokenizer((t for i in items for t in (i.question, i.answer or "")), recipe.model.vocabulary)
    processor = make_processor(tokenizer, recipe.model)
    backbone = make_backbone(tokenizer, recipe.model, recipe.seed)
    model = ProgressModel(backbone, ProgressHead(recipe.model.hidden))
    curve = fit(model, Transform(processor), items, recipe, on_step)
    run = training_run_id(recipe, release)
    folder = lake.workspace.root / "models" / run
    card = {
        "training_run": run,
        "release": release.name,
        "snapshot": release.snapshot,
        "release_hash": release.config_hash,
        "recipe": recipe.model_dump(mode="json"),
        "code_version": CODE_VERSION,
        "max_px": recipe.model.max_px,
        "parameters": sum(p.numel() for p in model.parameters()),
        "samples": len(items),
        "final": curve[-1].__dict__,
    }
    _save_whole(model, processor, folder, card, curve)
    seconds = time.monotonic() - started
    _record(lake, run, release, recipe, curve, folder)
    return TrainingRun(run, folder, tuple(curve), card["parameters"], len(items), seconds)


def _save_whole(model: ProgressModel, processor: object, folder: Path, card: dict, curve: Sequence[Point]) -> None:
    half = folder.with_name(f".{folder.name}.half")
    shutil.rmtree(half, ignore_errors=True)
    save_model(model, processor, half, card)
    (half / "curve.json").write_text(json.dumps([p.__dict__ for p in curve]) + "\n")
    shutil.rmtree(folder, ignore_errors=True)
    half.rename(folder)


def _record(lake: Lake, run: str, release: Release, recipe: Recipe, curve: Sequence[Point], folder: Path) -> None:
    now = datetime.now(UTC)
    row = {
        "training_run": run,
        "recipe": recipe.name,
        "release": release.name,
        "config_hash": release.config_hash,
        "config": recipe.model_dump_json(),
        "code_version": CODE_VERSION,
        "steps": recipe.steps,
        "final_loss": curve[-1].loss,
        "created_at": now,
    }
    checkpoint = {
        "training_run": run,
        "step": recipe.steps,
        "path": folder.relative_to(lake.workspace.root).as_posix(),
        "created_at": now,
    }
    lake.upsert(
        f"training run {run}",
        training_runs=TABLES["training_runs"].rows([row]),
        checkpoints=TABLES["checkpoints"].rows([checkpoint]),
    )


def trained(lake: Lake, run: str) -> Path | None:
    """The checkpoint folder of a finished training run; None when there is none."""
    rows = lake.rows("SELECT path FROM checkpoints WHERE training_run = ? ORDER BY step DESC LIMIT 1", [run])
    folder = lake.workspace.root / rows[0][0] if rows else None
    return folder if folder and (folder / "card.json").exists() else None
