"""The points of a training run, and where they go while it runs: the lake, for SQL; TensorBoard; W&B if asked.

Imports no torch.
"""

import importlib.util
import json
import os
import secrets
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from core.errors import UserError
from core.files import write_file
from core.tables import TABLES
from warehouse.lake import Lake

COMMIT_S = 60.0  # between two commits: each makes a snapshot of the lake
FLUSH_S = 10  # after which TensorBoard sees a point
PROJECT = "proccorpus"  # at Weights & Biases; WANDB_PROJECT says another


@dataclass(frozen=True, kw_only=True)
class Point:
    """One training step of all processes together.

    text: mean cross entropy of answer tokens; progress: mean |progress - label|; None where there is no such loss.
    done: share of the run, 0..1. samples and tokens (without padding) since the start. Rates are of this step alone;
    mfu is the share of the devices' arithmetic that training.plan counts, None where it was not counted. extra: what
    only one kind of training has, by name, such as the reward.
    """

    step: int
    loss: float
    text: float | None = None
    progress: float | None = None
    learning_rate: float
    gradient_norm: float
    done: float
    samples: int
    tokens: int
    samples_per_s: float
    tokens_per_s: float
    mfu: float | None = None
    extra: dict[str, float] = field(default_factory=dict)

    @property
    def scalars(self) -> dict[str, float]:
        """By name, for those who draw curves; without what there is none of."""
        values = asdict(self)
        values |= values.pop("extra")
        return {f"train/{name}": value for name, value in values.items() if name != "step" and value is not None}


@contextmanager
def recorded(
    lake: Lake, run: str, on_step: Callable[[Point], None], wandb: Any = None
) -> Iterator[Callable[[Point], None]]:
    """What to call after each step: tells `on_step`, and keeps the point. All are kept when it ends, even badly.

    A run that begins anew forgets the points it had; one that resumes, those from its first new step on. `wandb`: a run
    of `begin_wandb`, which gets the points, too.
    """
    pending: list[dict[str, Any]] = []
    events: Any = None
    committed, failed = 0.0, True

    def commit() -> None:
        nonlocal committed
        if pending:
            lake.upsert(f"points of {run}", training_points=TABLES["training_points"].rows(pending))
            pending.clear()
        committed = time.monotonic()

    def step(point: Point) -> None:
        nonlocal events, committed
        if events is None:
            events, committed = _begin(lake, run, point.step), time.monotonic()
        pending.append({"training_run": run, **asdict(point), "extra": json.dumps(point.extra, sort_keys=True)})
        for name, value in point.scalars.items():
            events.add_scalar(name, value, point.step)
        if time.monotonic() - committed > COMMIT_S:
            commit()
        if wandb is not None:
            wandb.log(point.scalars, step=point.step)
        on_step(point)

    try:
        yield step
        failed = False
    finally:
        if events is not None:
            commit()
            events.close()
        if wandb is not None:
            wandb.finish(exit_code=int(failed))


def event_folder(lake: Lake, run: str) -> Path:
    """A folder of TensorBoard's; its parent is for `tensorboard --logdir`."""
    return lake.workspace.root / "tensorboard" / run


def _begin(lake: Lake, run: str, first: int) -> Any:
    """TensorBoard's writer from step `first` on; later points of a run before this one are forgotten."""
    from torch.utils.tensorboard import SummaryWriter  # imports for more than a second

    lake.remove(f"points of {run}", "training_run = ? AND step >= ?", [run, first], "training_points")
    if not first:
        shutil.rmtree(event_folder(lake, run), ignore_errors=True)
    return SummaryWriter(str(event_folder(lake, run)), purge_step=first, flush_secs=FLUSH_S)


def begin_wandb(folder: Path, run: str, config: Mapping[str, Any], goes_on: bool) -> Any:
    """A run at Weights & Biases. One that resumes is the same one there as before; one that begins anew is a new one.

    `folder`: where wandb keeps its files, and we the run's number there; `config`: the recipe. With WANDB_MODE=offline
    nothing leaves this machine: `wandb sync` sends it later. Raises UserError.
    """
    if importlib.util.find_spec("wandb") is None:
        raise UserError("--wandb needs the package wandb: uv pip install wandb, or leave it out")
    import wandb  # type: ignore[import-not-found]

    known = folder / f"{run}.id"
    number = known.read_text().strip() if goes_on and known.exists() else f"{run}-{secrets.token_hex(4)}"
    write_file(known, f"{number}\n".encode())
    project = os.environ.get("WANDB_PROJECT", PROJECT)
    try:
        return wandb.init(project=project, id=number, name=run, dir=str(folder), config=dict(config), resume="allow")
    except wandb.Error as e:
        why = " ".join(str(e).split())[:300]
        raise UserError(f"wandb cannot begin: {why}; wandb login, or WANDB_MODE=offline to keep it here") from e
