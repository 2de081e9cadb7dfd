"""What `demo` and `build` do on a terminal: progress bars, a summary, errors for people."""

import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from assets.lib.launch.child import launched, reporting
from assets.lib.report import report_build, report_closing
from cli.output import show, status_rows
from core.paths import Workspace
from ingest.sources.types import DownloadError
from pipeline.build import run_build
from pipeline.config import DatasetBuild
from pipeline.release_cycle import Outcome, closing_steps, leaderboard_rows
from training.recipe import load_recipe
from warehouse.lake import open_lake

if TYPE_CHECKING:
    from annotate.vlm.cost import Prediction
    from training.loop import Point

DONE, FAILED = 0, 1


def build_all(space: Workspace, builds: Sequence[DatasetBuild], workers: int | None, verbose: bool) -> int:
    """Run a build with a progress bar, report it to Dagster, print what there is; the exit code.

    1 when a step failed or nothing is usable. Raises SourceError before anything is written.
    """
    costs = predictions(space, builds)
    errors = Console(stderr=True)
    with Progress(console=errors, transient=True, disable=not errors.is_terminal) as bar:
        task = bar.add_task("building", total=None)
        report = run_build(
            space,
            builds,
            workers,
            on_plan=lambda total: bar.update(task, total=total),
            on_stage=lambda r: bar.update(task, advance=1, description=f"{r.run.stage} {r.run.dataset}"),
            on_note=lambda text: errors.print(f"note: {text}", markup=False, highlight=False, soft_wrap=True),
        )
    report_build(space, [b.name for b in builds], report.done)
    if report.done:
        print(f"{len(report.done)} stages run, {report.up_to_date} were up to date.", flush=True)
    elif not report.failed:
        print(f"Everything is up to date ({report.up_to_date} stages): nothing was done again.", flush=True)
    rows = [r for r in status_rows(open_lake(space)) if r["dataset"] in {b.name for b in builds}]
    show(rows, "table")
    for name, cost in costs.items():
        sent = open_lake(space).dicts(
            "SELECT * FROM vlm_calls WHERE dataset = ? AND build_id = ?", [name, report.build_id]
        )
        if sent:
            stored = sum(int(r.numbers.get("answered_before", 0)) for r in report.done if r.run.dataset == name)
            rest = f" of a whole run ({stored} answers were there before and were not asked for)" if stored else ""
            print(f"What the model was asked about {name}, beside the prediction{rest}:", flush=True)
            show(cost.beside(sent), "table")
    for f in report.failed:
        where = f.dataset if f.chunk is None else f"{f.dataset} chunk {f.chunk}"
        message = f"error: {f.stage} of {where} failed: {f.message}; the rest was built, run again to retry"
        print(message, file=sys.stderr)
        if verbose:
            print(f.trace, file=sys.stderr)
    if report.failed:
        return FAILED
    if not any(r["ok"] for r in rows):
        print(f"error: no usable episode; reasons: proccorpus quarantine --workspace {space.root}", file=sys.stderr)
        return FAILED
    return DONE


def predictions(space: Workspace, builds: Sequence[DatasetBuild]) -> "dict[str, Prediction]":
    """What annotation by a model is expected to take, of the datasets that a model annotates and that are in reach."""
    asked = [b for b in builds if b.annotator == "vlm"]
    if not asked:
        return {}
    from pipeline.prediction import dataset_cost

    lake = open_lake(space) if space.exists() else None
    found = {}
    for b in asked:
        with suppress(DownloadError):  # the build says so, and goes on with the others
            found[b.name] = dataset_cost(lake, b, space.sources).prediction
    return found


def close(space: Workspace, release: str, recipe_name: str) -> None:
    """Release, train, evaluate and rank, then say what came of it."""
    recipe = load_recipe(recipe_name)
    lake = open_lake(space)
    with training_bar() as on_step:
        outcomes = closing_steps(lake, release, recipe, on_step)
    report_closing(space, outcomes)
    for o in outcomes[:3]:
        print(f"{o.asset.replace('_', ' ')}: {'made' if o.made else 'up to date'}")
        if "left_out" in o.numbers:
            print(f"left out: {o.numbers['left_out']}", file=sys.stderr)
    print("\nScores on held-out episodes, best first (mae, end_error: less is better; voc: more is better)")
    show(leaderboard_rows(lake), "table")
    for o in outcomes:
        for path in o.files:
            print(f"{o.asset}: {path}")


def train_visibly(space: Workspace, train: "Callable[[Callable[[Point], None]], Outcome]") -> Outcome | None:
    """Train with a progress bar and tell Dagster, or tell the Dagster run that launched this. `train` takes on_step.

    None in the further processes of torchrun, which have nothing to say.
    """
    if os.environ.get("RANK", "0") != "0":
        train(lambda point: None)
        return None
    if launched():
        with reporting() as reporter:
            outcome = train(reporter.step)
            reporter.outcome(outcome)
        return outcome
    with training_bar() as on_step:
        outcome = train(on_step)
    report_closing(space, [outcome])
    return outcome


@contextmanager
def counting() -> "Iterator[Callable[[str, int, int], None]]":
    """A bar for each method that a model is asked by; it is told its name, how many are answered, and of how many."""
    errors = Console(stderr=True)
    with Progress(
        *Progress.get_default_columns(), TextColumn("{task.completed}/{task.total}"),
        console=errors, transient=True, disable=not errors.is_terminal,
    ) as bar:  # fmt: skip
        tasks: dict[str, TaskID] = {}

        def on_rows(name: str, done: int, of: int) -> None:
            if name not in tasks:
                tasks[name] = bar.add_task(name, total=of)
            bar.update(tasks[name], completed=done)

        yield on_rows


@contextmanager
def training_bar() -> "Iterator[Callable[[Point], None]]":
    """A progress bar on the terminal; yields what to call after each step."""
    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task("training", total=1.0)
        yield lambda p: bar.update(task, completed=p.done, description=f"training, loss {p.loss:.3f}")
