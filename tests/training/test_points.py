"""The points of a run in the lake and in TensorBoard's files: of one that ends badly, begins anew, or goes on."""

import json
from collections.abc import Sequence
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from core.paths import Workspace
from core.tables import TABLES
from training.points import Point, event_folder, recorded
from warehouse.lake import Lake


def point(step: int, loss: float = 1.0, text: float | None = None) -> Point:
    numbers = {f.name: 0.5 for f in fields(Point)} | {
        "samples": 8 * step,
        "tokens": 80 * step,
        "extra": {"reward": 0.1},
    }
    return Point(**(numbers | {"step": step, "loss": loss, "text": text}))  # type: ignore[arg-type]


def points(lake: Lake) -> list[dict[str, Any]]:
    rows = lake.dicts("SELECT * EXCLUDE (training_run) FROM training_points WHERE training_run = 'run' ORDER BY step")
    return [r | {"extra": json.loads(r["extra"])} for r in rows]


def record(lake: Lake, steps: Sequence[int], loss: float = 1.0) -> list[int]:
    told: list[int] = []
    with recorded(lake, "run", lambda p: told.append(p.step)) as on_step:
        for step in steps:
            on_step(point(step, loss))
    return told


def scalars(lake: Lake) -> dict[int, float]:
    events = EventAccumulator(str(event_folder(lake, "run")))
    events.Reload()
    assert {"train/reward", "train/mfu"} < set(events.Tags()["scalars"])
    assert "train/text" not in events.Tags()["scalars"]
    return {e.step: e.value for e in events.Scalars("train/loss")}


@pytest.fixture
def lake(tmp_path: Path) -> Lake:
    return Lake(Workspace(tmp_path / "w"))


def test_the_table_has_every_field_of_a_point() -> None:
    assert [c.name for c in TABLES["training_points"].columns] == ["training_run", *(f.name for f in fields(Point))]


def test_a_run_that_goes_on_or_begins_anew(lake: Lake) -> None:
    assert record(lake, range(5)) == [0, 1, 2, 3, 4]
    assert points(lake) == [asdict(point(s)) for s in range(5)]
    assert scalars(lake) == dict.fromkeys(range(5), 1.0)
    record(lake, (3, 4, 5), 0.5)  # resumed from a checkpoint after step 2
    assert [(p["step"], p["loss"]) for p in points(lake)] == [
        (0, 1),
        (1, 1),
        (2, 1),
        (3, 0.5),
        (4, 0.5),
        (5, 0.5),
    ]
    assert scalars(lake) == {0: 1, 1: 1, 2: 1, 3: 0.5, 4: 0.5, 5: 0.5}
    record(lake, (0, 1), 0.25)
    assert [p["loss"] for p in points(lake)] == [0.25, 0.25]
    assert scalars(lake) == {0: 0.25, 1: 0.25}


def test_what_was_before_a_failure_is_kept(lake: Lake) -> None:
    def fail(p: Point) -> None:
        if p.step == 2:
            raise RuntimeError("the disk is full")

    def run() -> None:
        with recorded(lake, "run", fail) as on_step:
            for step in range(5):
                on_step(point(step))

    with pytest.raises(RuntimeError, match="disk"):
        run()
    assert [p["step"] for p in points(lake)] == [0, 1, 2]
