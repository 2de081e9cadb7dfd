"""Labels of simulated sets, built with and without their column of success, against what the simulator knows.

`benchmarks.label_truth --sets` prints the table.
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from benchmarks.sim_truth import (
    Run,
    difference,
    episode_runs,
    failed_among_first,
    level,
    mean_iou,
    over_tasks,
    published_bf1,
)
from benchmarks.tables import json_number, table, worded
from benchmarks.trial import build, without_outcomes
from core.paths import Workspace
from warehouse.lake import Lake

QUEUE_SHARE = 0.3  # of the review queue: how many failed runs are among its first


def build_set(folder: Path, space: Workspace, *, outcomes: bool) -> dict[str, list[Run]]:
    """Build the datasets of one simulated set, and score them."""
    runs = {}
    for truth in sorted((folder / "truth").iterdir()):
        dataset = truth.name
        if outcomes:
            build(space, folder / dataset, dataset)
        else:
            # Its place is the same at every call, or the workspace would take it for another dataset
            source = space.root.parent / f"{space.root.name}-sources" / dataset
            if not source.exists():
                without_outcomes(folder / dataset, source)
            build(space, source, dataset)
        runs[dataset] = episode_runs(Lake(space, read_only=True), folder / "truth", dataset)
    return runs


def simulated_sets(folders: Sequence[Path], kept: Path | None) -> dict[tuple[str, str, str], list[Run]]:
    """Runs by set, dataset and `with` or `without` outcomes."""
    runs: dict[tuple[str, str, str], list[Run]] = {}
    with TemporaryDirectory(prefix="proccorpus-trial-") as temporary:
        root = kept or Path(temporary)
        for folder in folders:
            for outcomes in (True, False):
                word = "with" if outcomes else "without"
                space = Workspace(root.resolve() / f"{folder.resolve().name}-{word}")
                for dataset, its_runs in build_set(folder, space, outcomes=outcomes).items():
                    runs[folder.resolve().name, dataset, word] = its_runs
    return runs


SIM_COLUMNS = (
    "clean: MAE less clock's",
    "troubled: MAE less clock's",
    "failed: end error",
    "F1 within 0.5 s",
    "uniform cuts",
    "random cuts",
    "F1 within 1 s",
    "BF1@5 less uniform's",
    "IoU less uniform's",
    "failed runs first in the queue, over chance",
)


def simulated_rows(runs: Mapping[tuple[str, str, str], Sequence[Run]]) -> list[dict[str, Any]]:
    """A row per set, dataset and way of building, and each way over all: what it is of, and its figures."""
    groups = list(runs.items())
    if len(groups) > 2:
        for word in ("with", "without"):
            groups.append((("all", "all", word), [r for key, its in runs.items() for r in its if key[2] == word]))
    return [
        {"set": name, "dataset": dataset, "outcomes": word, "runs": len(own), "tasks": len({r.task for r in own})}
        | {"figures": simulated_figures(own)}
        for (name, dataset, word), own in groups
    ]


def simulated_figures(runs: Sequence[Run]) -> dict[str, dict[str, float | None]]:
    """Figures of some runs by the columns' names, with intervals over tasks; null where no run has one."""
    clean, troubled = [r for r in runs if r.kind == "expert"], [r for r in runs if r.kind != "expert"]
    failed = [r for r in runs if not r.success]

    def mean(field: str) -> Callable[[Sequence[Run]], float]:
        return lambda rs: float(np.mean([getattr(r.score, field) for r in rs]))

    of = {
        "clean: MAE less clock's": (clean, difference("MAE", "clock")),
        "troubled: MAE less clock's": (troubled, difference("MAE", "clock")),
        "failed: end error": (failed, level("end error")),
        "F1 within 0.5 s": (runs, mean("f1_near")),
        "uniform cuts": (runs, mean("f1_near_uniform")),
        "random cuts": (runs, mean("f1_near_random")),
        "F1 within 1 s": (runs, mean("f1_far")),
        "BF1@5 less uniform's": (runs, lambda rs: published_bf1(0)(rs) - published_bf1(1)(rs)),
        "IoU less uniform's": (runs, lambda rs: mean_iou(0)(rs) - mean_iou(1)(rs)),
    }
    none = {"value": None, "low": None, "high": None}
    figures = {}
    for name, (chosen, value) in of.items():
        ends = over_tasks(chosen, value) if chosen else None
        figures[name] = dict(zip(none, map(json_number, ends), strict=True)) if ends else none
    lift = failed_among_first(runs, QUEUE_SHARE)
    return figures | {"failed runs first in the queue, over chance": none | {"value": json_number(lift)}}


def print_simulated(rows: Sequence[Mapping[str, Any]]) -> None:
    names = ("set", "dataset", "outcomes", "runs")
    cells = [
        [*(str(row[name]) for name in names), *(_figure_text(row["figures"][column]) for column in SIM_COLUMNS)]
        for row in rows
    ]
    table([*names, *SIM_COLUMNS], cells)


def _figure_text(figure: Mapping[str, float | None]) -> str:
    if figure["value"] is None:
        return "–"
    if figure["low"] is None:
        return f"{figure['value']:.2f}"
    return worded((figure["value"], figure["low"], figure["high"] or 0.0))
