"""What `demo` and `build` do on a terminal: progress bars, a summary, errors for people."""

import os
import sys
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING

from annotate.signal_report import lag_span
from annotate.signal_report import line as signal_line
from assets.lib.report import is_followed, report_build, report_closing
from cli.events import NO_EVENTS, BuildEvents
from cli.options import DONE, FAILED
from cli.output import show
from cli.progress import progress, training_progress
from cli.status import show_references, show_status, status_rows
from core.paths import Workspace
from ingest.reasons import REASONS
from ingest.signals.survey import findings_of
from ingest.sources.types import DownloadError
from pipeline.build import BuildReport, Moment, StepFailure, resolve, run_build
from pipeline.config import DatasetBuild
from pipeline.plan import ChunkStep
from warehouse.lake import open_lake
from warehouse.lake.labels import gate_counts
from warehouse.lake.signals import lags_by_dataset, signals_by_dataset

if TYPE_CHECKING:
    from annotate.vlm.cost import Prediction
    from pipeline.outcome import Outcome
    from training.loop import Point
    from warehouse.lake import Lake


def build_all(
    space: Workspace,
    builds: Sequence[DatasetBuild],
    workers: int | None,
    verbose: bool,
    *,
    update: bool = False,
    events: BuildEvents = NO_EVENTS,
) -> int:
    """Run a build with a progress bar, report it to Dagster where that is used, print a summary; returns the exit code.

    1 when a step failed or nothing is usable. Raises SourceError before anything is written.
    """
    # Predicted before the build, while it is still known what is not labelled yet
    costs = predictions(space, builds, update=update)
    report = _build_visibly(space, builds, workers, events, update=update)
    names = [build.name for build in builds]
    # Nobody waits for what nobody looks at: Dagster is told when its UI is first opened
    if is_followed(space):
        report_build(space, names, report.done)

    # What was done, and what the datasets hold now
    if report.done:
        print(f"{len(report.done)} stages run, {report.up_to_date} were up to date.", flush=True)
    elif not report.failed:
        print(f"Everything is up to date ({report.up_to_date} stages): nothing was done again.", flush=True)
    lake = open_lake(space)
    with lake.reading():
        rows = [row for row in status_rows(lake) if row["dataset"] in names]
        show_status(rows)
        show_signals(lake, names)
        show_gate(lake, names)
        show_references(lake, names)
    for name in _by_default_native(report):
        print(f"{name}: the source brings its own steps, so they are its labels; --annotator motion: without them")
    for name, cost in costs.items():
        _show_cost(space, report, name, cost)

    # What failed
    for failure in report.failed:
        _print_failure(failure, verbose)
    if report.failed:
        return FAILED
    if not any(row["ok"] for row in rows):
        print(f"error: no usable episode; reasons: proccorpus quarantine --workspace {space.root}", file=sys.stderr)
        return FAILED
    return DONE


def _by_default_native(report: BuildReport) -> list[str]:
    """Datasets whose steps count because nobody named an annotator, and the source brings some."""
    return [name for name, build in report.builds.items() if build.is_auto and build.annotator == "native"]


def show_gate(lake: "Lake", names: Sequence[str]) -> None:
    """How many labels of each dataset make no samples, or none of the names of their steps, and why."""
    for name, counts in gate_counts(lake.con).items():
        if name in names:
            for text in counts.sentences():
                print(f"{name}: {text}")


def show_signals(lake: "Lake", names: Sequence[str]) -> None:
    """One line on the grippers and hands of each dataset, with the remedy if something is wrong."""
    signals, lags = signals_by_dataset(lake.con), lags_by_dataset(lake.con)
    # Compared as a row: DuckLake looks through the statistics of all files for a condition of a column
    missing = dict(lake.rows("SELECT dataset, detail FROM findings WHERE (reason, 0) = ('no_gripper', 0)"))
    for name in names:
        of_dataset = lags.get(name, [])
        for signal in signals.get(name, []):
            print(f"{name}: {signal_line(signal, of_dataset)}")
            for finding in findings_of([signal]):
                print(f"{name}: {finding.reason}: {REASONS[finding.reason].remedy}")
        if name in missing:
            print(f"{name}: no_gripper: {missing[name]}: {REASONS['no_gripper'].remedy}")
        elif name not in signals:
            print(f"{name}: no gripper and no hand: no rows of state or action, or its registry entry says so")
        if state_lag := lag_span("state", of_dataset):
            print(f"{name}: the state is {state_lag} the pictures: labels are corrected by it")


def _build_visibly(
    space: Workspace, builds: Sequence[DatasetBuild], workers: int | None, events: BuildEvents, *, update: bool
) -> BuildReport:
    done: Counter[str] = Counter()
    episodes: dict[tuple[str, int], int] = {}
    to_do: Counter[str] = Counter()

    def on_steps(steps: Sequence[ChunkStep]) -> None:
        if steps:
            rows = open_lake(space).rows("SELECT dataset, chunk, count(*) FROM episode_facts GROUP BY ALL")
            episodes.update({(dataset, chunk): number for dataset, chunk, number in rows})
        for step in steps:
            to_do[step.stage.name] += episodes.get((step.dataset, step.chunk), 0)

    with progress() as report:

        def on_moment(moment: Moment) -> None:
            if moment.duration_s is not None:
                done[moment.stage] += episodes.get((moment.dataset, moment.chunk), 0)
            report(moment.stage, done[moment.stage], to_do[moment.stage] or None, "episodes")

        return run_build(
            space,
            builds,
            workers,
            on_plan=events.plan,
            on_note=lambda text: print(f"note: {text}", file=sys.stderr, flush=True),
            on_steps=on_steps,
            on_moment=on_moment,
            update=update,
        )


def _show_cost(space: Workspace, report: BuildReport, dataset: str, prediction: "Prediction") -> None:
    """The calls of a build to a model, beside what was predicted; nothing where none was sent."""
    calls = open_lake(space).dicts(
        "SELECT * FROM vlm_calls WHERE dataset = ? AND build_id = ?", [dataset, report.build_id]
    )
    # Where every answer was kept from before there is nothing to compare
    if not calls:
        return
    of_dataset = [done for done in report.done if done.run.dataset == dataset]
    stored = sum(int(done.numbers.get("answered_before", 0)) for done in of_dataset)
    rest = f" of a whole run ({stored} answers were there before and were not asked for)" if stored else ""
    print(f"What the model was asked about {dataset}, beside the prediction{rest}:", flush=True)
    show(prediction.beside(calls), "table")


def _print_failure(failure: StepFailure, verbose: bool) -> None:
    where = failure.dataset if failure.chunk is None else f"{failure.dataset} chunk {failure.chunk}"
    message = f"error: {failure.stage} of {where} failed: {failure.message}; the rest was built, run again to retry"
    print(message, file=sys.stderr)
    if verbose:
        print(failure.trace, file=sys.stderr)


def predictions(space: Workspace, builds: Sequence[DatasetBuild], *, update: bool = False) -> "dict[str, Prediction]":
    """The expected cost by dataset, of the datasets that a model annotates and whose source is in reach."""
    annotated_by_model = [build for build in builds if build.annotator == "vlm"]
    if not annotated_by_model:
        return {}
    # Imported here, so that a build without a model does not wait for it
    from pipeline.prediction import dataset_cost

    lake = open_lake(space) if space.exists() else None
    predicted = {}
    for build in annotated_by_model:
        with suppress(DownloadError):  # the build says so, and goes on with the others
            resolved = resolve(lake, build, update=update) if lake else build
            predicted[build.name] = dataset_cost(lake, resolved, space.sources).prediction
    return predicted


def close(space: Workspace, release: str, recipe_name: str) -> None:
    """Release, train, evaluate and rank, then print the outcomes and the leaderboard."""
    # Imported here: a build without it does not wait for what trains and scores
    from pipeline.leaderboard import leaderboard_rows
    from pipeline.release_cycle import closing_steps
    from training.recipe import load_recipe

    recipe = load_recipe(recipe_name)
    lake = open_lake(space)
    with training_progress() as on_step:
        outcomes = closing_steps(lake, release, recipe, on_step)
    report_closing(space, outcomes)
    release_model_and_scores = outcomes[:3]
    # The leaderboard, the last outcome, is printed as a table below
    for outcome in release_model_and_scores:
        state = "made" if outcome.made else "up to date"
        print(f"{outcome.asset.replace('_', ' ')}: {state}")
        if "left_out" in outcome.numbers:
            print(f"left out: {outcome.numbers['left_out']}", file=sys.stderr)
    print("\nScores on held-out episodes, best first (mae, end_error: less is better; voc: more is better)")
    show(leaderboard_rows(lake), "table")
    for outcome in outcomes:
        for path in outcome.files:
            print(f"{outcome.asset}: {path}")


def train_visibly(space: Workspace, train: "Callable[[Callable[[Point], None]], Outcome]") -> "Outcome | None":
    """Train with a progress bar and tell Dagster, or tell the Dagster run that launched this. `train` takes on_step.

    None in the further processes of torchrun, which have nothing to say.
    """
    from assets.lib.launch.child import launched, reporting

    # torchrun starts this program once per GPU: all train, the first one speaks
    if os.environ.get("RANK", "0") != "0":
        train(lambda point: None)
        return None
    # Under Dagster the run that launched this shows the progress, and no bar
    if launched():
        with reporting() as reporter:
            outcome = train(reporter.step)
            reporter.outcome(outcome)
        return outcome
    with training_progress() as on_step:
        outcome = train(on_step)
    report_closing(space, [outcome])
    return outcome
