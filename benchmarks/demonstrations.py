"""Does `demonstration_quality` find the runs that were demonstrated badly?

    python -m benchmarks.demonstrations SET1 SET2 ... [--workspace W]

Each set (what samples/make_samples.py writes) is built, and the score of each run compared with what the simulator
knows of it: how often a stalled, stopped or missed run has a lower score than a clean one of the sets (area under the
curve), for the score and for each part alone, first as if nobody knew how runs ended. Then clean runs are shaken: how
often a trembling hand has more jerk than other clean runs of its task, by the product's measure. Intervals are
bootstraps that draw whole tasks. Prints Markdown.
"""

import math
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any

import duckdb
import numpy as np
import pyarrow.parquet as pq

from annotate.quality import run_measures
from benchmarks.harness import arguments, build, table, worded
from core.demonstration_quality import LEAST_DEVIATIONS, ODD_Z
from core.paths import Workspace
from core.tables import TABLES
from pipeline.reading import chunk_signals
from warehouse.lake import Lake
from warehouse.lake.views import VIEWS

CLEAN = "expert"
TROUBLES = ("stalled", "stopped", "missed")
SHAKES = ((3.0, 0.02), (3.0, 0.05), (2.0, 0.05))  # Hz, standard deviations of each joint
NOISES = (0.005,)  # standard deviations of each joint
RESAMPLES = 1000


@dataclass(frozen=True)
class Judged:
    """A run of a simulated set: what the simulator knows, and the row of the view."""

    task: str
    kind: str
    row: dict[str, Any]


def judged(space: Workspace, folder: Path, *, outcomes: bool) -> list[Judged]:
    """The runs that have a score; `outcomes`: the view is told which runs failed."""
    lake = Lake(space, read_only=True)
    with duckdb.connect() as con:
        # The view as it is, over the same rows: outcomes are no part of the measures
        for name in TABLES:
            con.register("rows", lake.arrow(f"FROM {name} LIMIT 0"))
            con.execute(f"CREATE TABLE {name} AS FROM rows")
        for name in ("episode_facts", "demonstration_measures"):
            con.register("rows", lake.arrow(f"FROM {name}"))
            con.execute(f"INSERT INTO {name} FROM rows")
        if not outcomes:
            con.execute("UPDATE episode_facts SET success = NULL, success_source = NULL")
        for view in VIEWS:
            con.execute(f"CREATE VIEW {view.name} AS {view.sql}")
        rows = (
            con.execute("FROM demonstration_quality WHERE score IS NOT NULL")
            .to_arrow_table()
            .to_pylist()
        )
    kinds = _kinds(folder)
    return [
        Judged(
            f"{folder.resolve().name}: {row['task']}",
            kinds[row["dataset"], row["episode_index"]],
            row,
        )
        for row in rows
        if (row["dataset"], row["episode_index"]) in kinds
    ]


def _kinds(folder: Path) -> dict[tuple[str, int], str]:
    """What the simulator did in each run, by dataset and episode."""
    kinds = {}
    for truth in sorted((folder / "truth").iterdir()):
        for row in pq.read_table(
            truth / "episodes.parquet", columns=["episode_index", "policy"]
        ).to_pylist():
            kinds[truth.name, row["episode_index"]] = row["policy"]
    return kinds


def area(troubled: Sequence[float], clean: Sequence[float]) -> float:
    """How often one of the troubled is higher than one of the clean; equal ones count half. NaN without either."""
    if not len(troubled) or not len(clean):
        return float("nan")
    differences = np.asarray(troubled)[:, None] - np.asarray(clean)[None]
    return float((differences > 0).mean() + (differences == 0).mean() / 2)


def by_tasks[T](runs: Sequence[T], task: Callable[[T], str], value: Callable[[Sequence[T]], float]):
    """A figure of some runs with the interval of a bootstrap that draws whole tasks."""
    runs_by_task: dict[str, list[T]] = defaultdict(list)
    for run in runs:
        runs_by_task[task(run)].append(run)
    groups = [runs_by_task[name] for name in sorted(runs_by_task)]
    rng = np.random.default_rng(0)
    drawn = []
    for _ in range(RESAMPLES):
        chosen = rng.integers(0, len(groups), len(groups))
        drawn.append(value(list(chain.from_iterable(groups[k] for k in chosen))))
    low, high = np.nanpercentile(drawn, [2.5, 97.5])
    return value(runs), float(low), float(high)


def oddness(run: Judged, part: str) -> float:
    if part == "score":
        return 1 - run.row["score"]
    return run.row[f"{part}_z"] or 0.0


def parts_table(runs: Sequence[Judged]) -> None:
    """Score and parts against each kind of trouble, and which share of clean runs has a word said of it."""
    clean = [run for run in runs if run.kind == CLEAN]
    rows = []
    for part in ("score", *LEAST_DEVIATIONS):
        cells = [part]
        for kinds in (TROUBLES, *((kind,) for kind in TROUBLES)):

            def of_kinds(
                drawn: Sequence[Judged], part: str = part, kinds: tuple[str, ...] = kinds
            ) -> float:
                troubled = [oddness(run, part) for run in drawn if run.kind in kinds]
                return area(troubled, [oddness(run, part) for run in drawn if run.kind == CLEAN])

            cells.append(worded(by_tasks(runs, lambda run: run.task, of_kinds)))
        is_flagged = [
            bool(r.row["why"]) if part == "score" else oddness(r, part) >= ODD_Z for r in clean
        ]
        rows.append([*cells, f"{np.mean(is_flagged):.2f}"])
    table(["", "all troubled", *TROUBLES, "clean runs of which it is said"], rows)


@dataclass(frozen=True)
class Shaken:
    """How much more jerk a run has than the median clean one of its task, as it is and after a change; logarithms."""

    task: str
    before: float
    after: float


def shaken(
    space: Workspace,
    folder: Path,
    change: Callable[[np.ndarray, float, np.random.Generator], np.ndarray],
):
    """The clean runs of a set; `change` of a state [n, d] at some frames per second."""
    lake = Lake(space, read_only=True)
    kinds = _kinds(folder)
    rng = np.random.default_rng(0)
    pairs: dict[str, list[tuple[float, float]]] = {}
    for dataset, chunk in lake.rows(
        "SELECT DISTINCT dataset, chunk FROM episode_content ORDER BY ALL"
    ):
        for signals in chunk_signals(lake, dataset, chunk):
            if signals.state is None or kinds.get((dataset, signals.episode_index)) != CLEAN:
                continue
            changed = replace(
                signals, state=change(signals.state.astype(np.float64), signals.fps, rng)
            )
            jerks = run_measures(signals).jerk, run_measures(changed).jerk
            if jerks[0] and jerks[1]:
                pairs.setdefault(f"{dataset}: {signals.task}", []).append(
                    (math.log(jerks[0]), math.log(jerks[1]))
                )
    for task, of_task in pairs.items():
        usual_score = median(first_score for first_score, _ in of_task)
        if len(of_task) > 1:
            yield from (
                Shaken(task, first_score - usual_score, last_score - usual_score)
                for first_score, last_score in of_task
            )


def trembling(
    hz: float, share: float
) -> Callable[[np.ndarray, float, np.random.Generator], np.ndarray]:
    def change(state: np.ndarray, fps: float, rng: np.random.Generator) -> np.ndarray:
        times = np.arange(len(state))[:, None] / fps
        phases = rng.uniform(0, 2 * np.pi, state.shape[1])
        return state + share * state.std(axis=0) * np.sin(2 * np.pi * hz * times + phases)

    return change


def noisy(share: float) -> Callable[[np.ndarray, float, np.random.Generator], np.ndarray]:
    return lambda state, fps, rng: state + share * state.std(axis=0) * rng.normal(size=state.shape)


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument(
        "sets", nargs="+", type=Path, help="folders of simulated datasets with their truth"
    )
    parser.add_argument("--workspace", type=Path, help="keep the workspaces below it")
    args = parser.parse_args()
    with TemporaryDirectory(prefix="proccorpus-trial-") as temporary:
        root = (args.workspace or Path(temporary)).resolve()
        places = [(Workspace(root / folder.resolve().name), folder) for folder in args.sets]
        for space, folder in places:
            for truth in sorted((folder / "truth").iterdir()):
                build(space, folder / truth.name, truth.name)
        for outcomes in (False, True):
            of_sets = (judged(space, folder, outcomes=outcomes) for space, folder in places)
            runs = list(chain.from_iterable(of_sets))
            kinds = Counter(run.kind for run in runs)
            counts = ", ".join(f"{kinds[kind]} {kind}" for kind in (CLEAN, *TROUBLES))
            print(
                f"Outcomes {'known' if outcomes else 'left out'}: {len({r.task for r in runs})} tasks, {counts}\n"
            )
            parts_table(runs)
        changes = {
            f"trembling at {hz:g} Hz, {100 * share:g} %": trembling(hz, share)
            for hz, share in SHAKES
        }
        changes |= {f"noise of a sensor, {100 * share:g} %": noisy(share) for share in NOISES}
        rows = []
        for name, change in changes.items():
            of_sets = (shaken(space, folder, change) for space, folder in places)
            pairs = list(chain.from_iterable(of_sets))
            figure = by_tasks(
                pairs,
                lambda p: p.task,
                lambda ps: area([p.after for p in ps], [p.before for p in ps]),
            )
            rows.append([name, str(len(pairs)), worded(figure)])
        table(["of its standard deviation", "clean runs", "jerk above that of others"], rows)


if __name__ == "__main__":
    main()
