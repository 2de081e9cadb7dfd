"""Where the points of a training run go while it runs: the lake, for SQL, TensorBoard's event files, W&B if asked."""

import json
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from core.tables import TABLES
from training.wandb_log import WandbLog
from warehouse.lake import Lake

if TYPE_CHECKING:
    from training.loop import Point

COMMIT_S = 60.0  # between two commits: each makes a snapshot of the lake
FLUSH_S = 10  # after which TensorBoard sees a point


@contextmanager
def recorded(
    lake: Lake, run: str, on_step: "Callable[[Point], None]", wandb: WandbLog | None = None
) -> "Iterator[Callable[[Point], None]]":
    """What to call after each step: tells `on_step`, and keeps the point. All are kept when it ends, even badly.

    A run that begins anew forgets the points it had; one that goes on, those from its first new step on. `wandb`: where
    points go, too.
    """
    log = PointLog(lake, run)
    failed = True

    def step(point: "Point") -> None:
        log.add(point)
        if wandb is not None:
            wandb.add(point)
        on_step(point)

    try:
        yield step
        failed = False
    finally:
        log.close()
        if wandb is not None:
            wandb.close(failed)


def event_folder(lake: Lake, run: str) -> Path:
    """A folder of TensorBoard's; its parent is for `tensorboard --logdir`."""
    return lake.workspace.root / "tensorboard" / run


class PointLog:
    """The points of one run, in the table `training_points` and in event files."""

    def __init__(self, lake: Lake, run: str) -> None:
        self._lake, self._run = lake, run
        self._pending: list[dict[str, Any]] = []
        self._events: Any = None
        self._committed = 0.0

    def add(self, point: "Point") -> None:
        if self._events is None:
            self._events = self._begin(point.step)
        values = asdict(point)
        extra = values.pop("extra")
        self._pending.append({"training_run": self._run, **values, "extra": json.dumps(extra, sort_keys=True)})
        for name, value in (values | extra).items():
            if name != "step" and value is not None:
                self._events.add_scalar(f"train/{name}", value, point.step)
        if time.monotonic() - self._committed > COMMIT_S:
            self._commit()

    def close(self) -> None:
        if self._events is not None:
            self._commit()
            self._events.close()

    def _begin(self, first: int) -> Any:
        from torch.utils.tensorboard import SummaryWriter  # imports for more than a second

        self._lake.remove(
            f"points of {self._run}", "training_run = ? AND step >= ?", [self._run, first], "training_points"
        )
        folder = event_folder(self._lake, self._run)
        if not first:
            shutil.rmtree(folder, ignore_errors=True)
        self._committed = time.monotonic()
        return SummaryWriter(str(folder), purge_step=first, flush_secs=FLUSH_S)

    def _commit(self) -> None:
        if self._pending:
            rows = TABLES["training_points"].rows(self._pending)
            self._lake.upsert(f"points of {self._run}", training_points=rows)
            self._pending = []
        self._committed = time.monotonic()
