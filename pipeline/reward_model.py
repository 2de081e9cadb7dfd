"""The step `reward_model`: a recipe trained on a release, and calibrated, unless that very model exists.

What imports torch is imported inside the functions: Dagster loads this module with its definitions.
"""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from core.figures import render
from pipeline.outcome import Outcome
from warehouse.lake import Lake
from warehouse.releases import Release

if TYPE_CHECKING:
    from training.recipe import Recipe
    from training.train import Point

DEMO_RECIPE = "laptop"
LAST_STEPS = 20  # of training, whose mean is shown


def reward_model_step(
    lake: Lake,
    release: Release,
    recipe: "Recipe",
    *,
    always: bool = False,
    on_step: Callable[["Point"], None] = lambda point: None,
    resume: bool = False,
    wandb: bool = False,
) -> Outcome:
    """Train the recipe on a release unless that very model exists (`always` trains all the same, `resume` goes on).

    `wandb`: the curve goes to Weights & Biases, too.
    """
    from eval.held_out.within import scorer_of
    from eval.reward.calibration import calibrate_checkpoint
    from training.finished import trained
    from training.folder import read_card
    from training.points import recorded
    from training.train import train, training_run_id
    from training.wandb_log import WandbLog

    run = training_run_id(recipe, release)
    folder = None if always else trained(lake, run)
    is_new = folder is None
    is_first = os.environ.get("RANK", "0") == "0"  # of torchrun's processes
    if folder is None:
        scorer = scorer_of(lake, release, recipe)  # before the model is loaded: a release may have nothing held out
        log = None
        if wandb and is_first:
            config = recipe.model_dump(mode="json")
            log = WandbLog(lake.workspace.root / "wandb", run, config | {"release": release.name}, resume)
        with recorded(lake, run, on_step, log) as step:
            folder = train(lake, release, recipe, step, resume, scorer).checkpoint
        if is_first:
            best = read_card(folder).get("best")
            for made in (folder, folder.with_name(best["model"])) if best else (folder,):
                calibrate_checkpoint(lake, release, made)
    return model_outcome(run, release.name, folder, is_new)


def model_outcome(run: str, release: str, folder: Path, is_new: bool = False) -> Outcome:
    """What there is to show of a trained model, made now or found: `folder` is its checkpoint."""
    from eval.report import training_figure
    from training.model import read_card

    curve = json.loads((folder / "curve.json").read_text())
    last = curve[-LAST_STEPS:]
    numbers: dict[str, int | float | str] = {
        "training_run": run,
        "release": release,
        "steps": len(curve),
        "final_loss": float(np.mean([point["loss"] for point in last])),
    }
    errors = [point["progress"] for point in last if point["progress"] is not None]
    if errors:
        numbers["final_progress_error"] = float(np.mean(errors))
    numbers |= _success_numbers(folder)
    best = read_card(folder).get("best")
    if best:
        numbers |= {"best_model": best["model"], "best_mae": best["mae"]}
    return Outcome("reward_model", run, is_new, numbers, render(training_figure(curve)), (folder,))


def _success_numbers(folder: Path) -> dict[str, float]:
    from training.folder import read_card

    success = read_card(folder).get("success") or {}
    return {f"success_{name}": success[name] for name in ("threshold", "balanced_accuracy") if name in success}
