"""Training runs: their names, their folders in a workspace, and what the lake has of them. Imports no torch."""

import hashlib
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from core.names import LATEST
from core.paths import Workspace
from core.tables import TABLES
from training.errors import TrainingError
from training.folder import CARD
from training.points import Point
from training.recipe import Recipe
from warehouse.lake import Lake
from warehouse.releases import Release

CODE_VERSION = "training-12"  # 12: a laptop model's strangeness is by the nearest pictures
BEST = ".best"  # after a run's name: the best model of a run that evaluates
STATE_FILE = "state.json"  # of a checkpoint to resume from


@dataclass(frozen=True)
class TrainingRun:
    id: str
    checkpoint: Path
    curve: tuple[Point, ...]
    parameters: int
    samples: int
    seconds: float


def training_run_id(recipe: Recipe, release: Release) -> str:
    """Equal for equal recipe, release content and code."""
    text = "\0".join([recipe.model_dump_json(), release.config_hash, CODE_VERSION])
    return f"{recipe.name}-{release.name}-{hashlib.sha256(text.encode()).hexdigest()[:8]}"


def run_folder(space: Workspace, run: str) -> Path:
    """Where a run's checkpoint is, or will be."""
    return space.root / "models" / run


def best_folder(folder: Path) -> Path:
    return folder.with_name(folder.name + BEST)


def steps_folder(space: Workspace, run: str) -> Path:
    """Where a run's checkpoints to resume from are."""
    return space.root / "models" / f"{run}.steps"


def saved_steps(steps: Path) -> list[Path]:
    """The whole checkpoints of a run, oldest first; half-written ones bear other names."""
    return sorted(p for p in steps.glob("step-*") if (p / STATE_FILE).exists())


def resumable(space: Workspace, recipe: Recipe, release: Release) -> bool:
    """Is there a checkpoint that this run could resume from?"""
    return bool(saved_steps(steps_folder(space, training_run_id(recipe, release))))


def forget_steps(space: Workspace, run: str) -> None:
    """Take away what a run could resume from, so that it begins anew."""
    shutil.rmtree(steps_folder(space, run), ignore_errors=True)


def trained(lake: Lake, run: str) -> Path | None:
    """The checkpoint folder of a finished training run; None when there is none."""
    rows = lake.rows("SELECT path FROM checkpoints WHERE training_run = ? ORDER BY step DESC LIMIT 1", [run])
    folder = lake.workspace.root / rows[0][0] if rows else None
    return folder if folder and (folder / CARD).exists() else None


def newest_model(lake: Lake, recipe: str | None = None) -> str | None:
    """The training run, of a recipe or of any, that ended last and whose checkpoint is there."""
    runs = lake.column(
        "SELECT training_run FROM training_runs WHERE recipe = coalesce(?, recipe) ORDER BY created_at DESC, 1",
        [recipe],
    )
    return next((run for run in runs if trained(lake, run)), None)


def named_model(lake: Lake, name: str) -> str:
    """The training run that a name stands for: `latest` and a recipe's name for the newest there is; else itself.

    Raises TrainingError: nothing was trained yet.
    """
    if name != LATEST:
        return newest_model(lake, name) or name
    newest = newest_model(lake)
    if newest is None:
        raise TrainingError("no model was trained in this workspace yet: proccorpus train")
    return newest


def named_in(space: Workspace, name: str) -> str:
    """The same in a workspace that is only looked at. Raises LakeError, TrainingError."""
    return named_model(Lake(space, read_only=True), name)


def record(
    lake: Lake, run: str, release: Release, recipe: Recipe, curve: Sequence[Point], best_step: int | None = None
) -> None:
    """Write a finished run and its checkpoints into the lake. `best_step`: of the best model, where it was kept."""
    now, folder = datetime.now(UTC), run_folder(lake.workspace, run)
    row = {
        "training_run": run,
        "recipe": recipe.name,
        "release": release.name,
        "config_hash": release.config_hash,
        "config": recipe.model_dump_json(),
        "code_version": CODE_VERSION,
        "steps": len(curve),
        "final_loss": curve[-1].loss,
        "created_at": now,
    }
    made = [(folder, len(curve))]
    if best_step is not None:
        made.append((best_folder(folder), best_step + 1))
    checkpoints = [
        {"training_run": p.name, "step": n, "path": p.relative_to(lake.workspace.root).as_posix(), "created_at": now}
        for p, n in made
    ]
    lake.upsert(
        f"training run {run}",
        training_runs=TABLES["training_runs"].rows([row]),
        checkpoints=TABLES["checkpoints"].rows(checkpoints),
    )
