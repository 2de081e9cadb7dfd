"""The points of a training run at Weights & Biases, beside the lake and TensorBoard, where that is asked for.

With WANDB_MODE=offline nothing leaves this machine: `wandb sync` sends it later.
"""

import importlib.util
import os
import secrets
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from core.errors import UserError
from core.files import write_file

if TYPE_CHECKING:
    from training.loop import Point

PROJECT = "proccorpus"  # WANDB_PROJECT says another


class WandbLog:
    """One run's log. A run that goes on is the same one there as before; one that begins anew is a new one.

    `folder`: where wandb keeps its files, and we the run's number there; `config`: the recipe. Raises UserError.
    """

    def __init__(self, folder: Path, run: str, config: Mapping[str, Any], goes_on: bool) -> None:
        if importlib.util.find_spec("wandb") is None:
            raise UserError("--wandb needs the package wandb: uv pip install wandb, or leave it out")
        import wandb  # type: ignore[import-not-found]

        known = folder / f"{run}.id"
        number = known.read_text().strip() if goes_on and known.exists() else f"{run}-{secrets.token_hex(4)}"
        write_file(known, f"{number}\n".encode())
        try:
            self._run = wandb.init(
                project=os.environ.get("WANDB_PROJECT", PROJECT),
                id=number,
                name=run,
                dir=str(folder),
                config=dict(config),
                resume="allow",
            )
        except wandb.Error as e:
            why = " ".join(str(e).split())[:300]
            raise UserError(f"wandb cannot begin: {why}; wandb login, or WANDB_MODE=offline to keep it here") from e

    def add(self, point: "Point") -> None:
        values = asdict(point)
        extra = values.pop("extra")
        step = values.pop("step")
        found = {f"train/{name}": value for name, value in (values | extra).items() if value is not None}
        self._run.log(found, step=step)

    def close(self, failed: bool) -> None:
        self._run.finish(exit_code=int(failed))
