"""Training runs: their points, their names, their folders in a workspace, and what the lake has of them. Imports no
torch."""

import hashlib
import importlib.util
import json
import os
import secrets
import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from core.errors import UserError
from core.files import sha256_file, write_file
from core.names import LATEST
from core.paths import Workspace
from core.tables import TABLES
from training.folder import CARD, TrainingError
from training.recipe import Recipe
from warehouse.lake import Lake
from warehouse.releases.release import Release

CODE_VERSION = "training-13"  # 13: noise and dropout by a batch's number
BEST = ".best"  # after a run's name: the best model of a run that evaluates
STATE_FILE = "state.json"  # of a checkpoint to resume from


# The points of a run, and where they go while it runs: the lake, for SQL; TensorBoard; W&B if asked

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
        return {
            f"train/{name}": value
            for name, value in values.items()
            if name != "step" and value is not None
        }


@contextmanager
def recorded(
    lake: Lake, run: str, on_step: Callable[[Point], None], wandb: Any = None
) -> Iterator[Callable[[Point], None]]:
    """What to call after each step: tells `on_step`, and keeps the point. All are kept when it
    ends, even badly.

    A run that begins anew forgets the points it had; one that resumes, those from its first new
    step on. `wandb`: a run of `begin_wandb`, which gets the points, too.
    """
    from torch.utils.tensorboard import SummaryWriter  # imports for more than a second

    pending: list[dict[str, Any]] = []
    events: Any = None
    committed = 0.0
    failed = True

    def commit() -> None:
        nonlocal committed
        if pending:
            lake.upsert(f"points of {run}", training_points=TABLES["training_points"].rows(pending))
            pending.clear()
        committed = time.monotonic()

    def step(point: Point) -> None:
        nonlocal events, committed
        if events is None:
            # Later points of a run before this one are forgotten
            lake.remove(
                f"points of {run}",
                "training_run = ? AND step >= ?",
                [run, point.step],
                "training_points",
            )
            folder = event_folder(lake, run)
            if not point.step:
                shutil.rmtree(folder, ignore_errors=True)
            events = SummaryWriter(
                str(folder),
                purge_step=point.step,
                flush_secs=FLUSH_S,
            )
            committed = time.monotonic()
        pending.append(
            {"training_run": run, **asdict(point), "extra": json.dumps(point.extra, sort_keys=True)}
        )
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


def begin_wandb(folder: Path, run: str, config: Mapping[str, Any], goes_on: bool) -> Any:
    """A run at Weights & Biases. One that resumes is the same one there as before; one that begins anew is a new one.

    `folder`: where wandb keeps its files, and we the run's number there; `config`: the recipe. With WANDB_MODE=offline
    nothing leaves this machine: `wandb sync` sends it later. Raises UserError.
    """
    if importlib.util.find_spec("wandb") is None:
        raise UserError("--wandb needs the package wandb: uv pip install wandb, or leave it out")
    import wandb  # type: ignore[import-not-found]

    id_file = folder / f"{run}.id"
    if goes_on and id_file.exists():
        number = id_file.read_text().strip()
    else:
        number = f"{run}-{secrets.token_hex(4)}"
    write_file(id_file, f"{number}\n".encode())
    try:
        return wandb.init(
            project=os.environ.get("WANDB_PROJECT", PROJECT),
            id=number,
            name=run,
            dir=str(folder),
            config=dict(config),
            resume="allow",
        )
    except wandb.Error as e:
        reason = " ".join(str(e).split())[:300]
        raise UserError(
            f"wandb cannot begin: {reason}; wandb login, or WANDB_MODE=offline to keep it here"
        ) from e


# Runs, in folders and in the lake


@dataclass(frozen=True)
class TrainingRun:
    id: str
    checkpoint: Path
    curve: tuple[Point, ...]
    parameters: int
    samples: int
    seconds: float


def training_run_id(recipe: Recipe, release: Release) -> str:
    """Equal for equal recipe, files of rows, release content and code."""
    files = (*recipe.data.jsonl, *recipe.data.validation_jsonl)
    # Who reads the rows says which file is missing
    hashes = [sha256_file(path) for path in files if path.is_file()]
    text = "\0".join([recipe.model_dump_json(), release.config_hash, CODE_VERSION, *hashes])
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
    rows = lake.rows(
        "SELECT path FROM checkpoints WHERE training_run = ? ORDER BY step DESC LIMIT 1", [run]
    )
    folder = lake.workspace.root / rows[0][0] if rows else None
    if folder and (folder / CARD).exists():
        return folder
    return None


def newest_model(lake: Lake, recipe: str | None = None) -> str | None:
    """The training run, of a recipe or of any, that ended last and whose checkpoint is there."""
    runs = lake.column(
        "SELECT training_run FROM training_runs WHERE recipe = coalesce(?, recipe) ORDER BY created_at DESC, 1",
        [recipe],
    )
    return next((run for run in runs if trained(lake, run)), None)


def named_model(lake: Lake, name: str) -> str:
    """The training run that a name stands for: `latest` and a recipe's name for the newest there
    is; else itself.

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
    lake: Lake,
    run: str,
    release: Release,
    recipe: Recipe,
    curve: Sequence[Point],
    best_step: int | None = None,
) -> None:
    """Write a finished run and its checkpoints into the lake. `best_step`: of the best model, where it was kept."""
    created_at = datetime.now(UTC)
    folder = run_folder(lake.workspace, run)
    row = {
        "training_run": run,
        "recipe": recipe.name,
        "release": release.name,
        "config_hash": release.config_hash,
        "config": recipe.model_dump_json(),
        "code_version": CODE_VERSION,
        "steps": len(curve),
        "final_loss": curve[-1].loss,
        "created_at": created_at,
    }
    saved_folders = [(folder, len(curve))]
    if best_step is not None:
        saved_folders.append((best_folder(folder), best_step + 1))
    checkpoints = [
        {
            "training_run": p.name,
            "step": n,
            "path": p.relative_to(lake.workspace.root).as_posix(),
            "created_at": created_at,
        }
        for p, n in saved_folders
    ]
    lake.upsert(
        f"training run {run}",
        training_runs=TABLES["training_runs"].rows([row]),
        checkpoints=TABLES["checkpoints"].rows(checkpoints),
    )
