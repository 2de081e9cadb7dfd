"""The step `reward_model`: a recipe trained on a release, and calibrated, unless that very model exists.

What imports torch is imported inside the functions: Dagster loads this module with its definitions.
"""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from core.figures import COLOURS, new_figure, render
from pipeline.outcome import Outcome
from warehouse.lake import Lake
from warehouse.releases import Release

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from training.recipe import Recipe
    from training.train import Point

DEMO_RECIPE = "tiny_cpu"
LAST_STEPS = 20  # of training, whose mean is shown
SMOOTHED_STEPS = 10  # of the curves


def reward_model_step(
    lake: Lake,
    release: Release,
    recipe: "Recipe",
    *,
    always: bool = False,
    on_step: Callable[["Point"], None] = lambda point: None,
    resume: bool = False,
) -> Outcome:
    """Train the recipe on a release unless that very model exists (`always` trains all the same, `resume` goes on)."""
    from training.points import recorded
    from training.train import train, trained, training_run_id

    run = training_run_id(recipe, release)
    folder = None if always else trained(lake, run)
    is_new = folder is None
    if folder is None:
        with recorded(lake, run, on_step) as step:
            folder = train(lake, release, recipe, step, resume).checkpoint
        if os.environ.get("RANK", "0") == "0":  # of torchrun's processes
            calibration_step(lake, release, folder)

    curve = load_curve(folder)
    last = curve[-LAST_STEPS:]
    numbers: dict[str, int | float | str] = {
        "training_run": run,
        "release": release.name,
        "steps": len(curve),
        "final_loss": float(np.mean([point["loss"] for point in last])),
    }
    errors = [point["progress"] for point in last if point["progress"] is not None]
    if errors:
        numbers["final_progress_error"] = float(np.mean(errors))
    numbers |= _success_numbers(folder)
    return Outcome("reward_model", run, is_new, numbers, render(curve_figure(curve)), (folder,))


def calibration_step(lake: Lake, release: Release, folder: Path, *, words: bool = False) -> dict[str, Any]:
    """Calibrate from which output on a run counts as done, on a release's validation episodes, into the model's card.

    Returns what the card now says; nothing where there is nothing to calibrate by. A model without a head answers each
    moment in words, which is slow, and is calibrated with `words` only. Raises ModelError or ShardError.
    """
    from eval.held_out.episodes import held_out
    from eval.reward.calibration import SPLIT, calibrated
    from eval.reward.model import open_model
    from eval.reward.window import LAST_PICTURE, Window
    from training.card import add_success
    from training.model import read_card

    card = read_card(folder)
    episodes = held_out(lake, release, (SPLIT,)) if release.paths(lake.workspace, SPLIT) else []
    if not episodes or (card.get("head", True) is None and not words):
        return {}
    scorer = open_model(folder, window=None if Window.of_card(card) else LAST_PICTURE)
    success = calibrated(scorer, card["max_px"], episodes, release.name)
    if success is None:
        return {}
    add_success(folder, success.as_json())
    return success.as_json()


def _success_numbers(folder: Path) -> dict[str, float]:
    from training.model import read_card

    success = read_card(folder).get("success") or {}
    return {f"success_{name}": success[name] for name in ("threshold", "balanced_accuracy") if name in success}


def newest_model(lake: Lake) -> str | None:
    """The training run that ended last and whose checkpoint is there."""
    from training.train import trained

    rows = lake.rows("SELECT training_run FROM training_runs ORDER BY created_at DESC, 1")
    return next((run for (run,) in rows if trained(lake, run)), None)


def load_curve(folder: Path) -> list[dict[str, Any]]:
    return json.loads((folder / "curve.json").read_text())


def curve_figure(curve: list[dict[str, Any]]) -> "Figure":
    """Training loss and batch progress error over steps, smoothed."""
    figure, axes = new_figure()
    for name, colour in (("loss", COLOURS[0]), ("progress", COLOURS[3])):
        values = np.array([point[name] for point in curve if point[name] is not None])
        if not len(values):
            continue
        width = min(SMOOTHED_STEPS, len(values))
        smooth = np.convolve(values, np.ones(width) / width, mode="valid")
        axes[0, 0].plot(np.arange(len(smooth)) + width - 1, smooth, color=colour, label=name)
    axes[0, 0].set(xlabel="step", yscale="log", ylabel="loss")
    axes[0, 0].legend(fontsize=8)
    return figure
