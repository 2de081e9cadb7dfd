"""The training runs of a workspace that have a checkpoint, by their names. Imports no torch."""

from pathlib import Path

from core.names import LATEST
from training.errors import TrainingError
from training.folder import CARD
from warehouse.lake import Lake


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
