"""Scores of models, prediction files and annotators."""

from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

from typer import Argument, Option

from cli.lakes import WriteLake, lake_at
from cli.options import (
    AS_JSON,
    Facts,
    ReleaseOption,
    Result,
    Space,
    command,
    is_setting,
    note,
    say,
    warn,
)
from cli.output import print_result, progress, show
from core.errors import UserError
from core.metrics import TERMINAL, metrics_shown_in
from core.names import LATEST
from core.settings import read_settings, setting_values
from eval.annotators.compare import TRUTH, Comparison, differences
from eval.benchmarks.load import BENCHMARKS, score_predictions
from eval.benchmarks.options import CHECKS, HELD_OUT, EvaluationOptions
from eval.benchmarks.question import read_predictions
from eval.scored import ALL, model_comparison, store_scores
from pipeline.comparison import (
    comparison_step,
    conclusions,
    farthest,
    groups,
    metric_table,
    reference_words,
    short_table,
)
from warehouse.lake import Lake, open_lake
from warehouse.releases.release import get_release

SETTINGS_HELP = (
    "A setting, KEY=VALUE; repeatable: "
    + ", ".join(name for name, field in EvaluationOptions.model_fields.items() if is_setting(field))
    + "."
)


@command("eval")
def eval_model(
    space: Space,
    options: EvaluationOptions,
    checks: Annotated[
        bool, Option(help="Also run probes, confusion and robustness after held-out.")
    ] = False,
    release: ReleaseOption = None,
    settings: Annotated[list[str] | None, Option("--set", help=SETTINGS_HELP)] = None,
) -> Result:
    """Score a model and the baselines on a benchmark or on held-out episodes; writes a report."""
    values = options.model_dump(exclude_unset=True) | setting_values(settings or ())
    options = read_settings(EvaluationOptions, "eval", values)
    if options.model is None and options.endpoint:
        raise UserError("--endpoint needs --model, the model's name there")
    model = options.model or LATEST
    if checks and (options.benchmark != HELD_OUT or AS_JSON.get()):
        raise UserError(
            "--checks goes with --benchmark held-out, which is the default, and prints a table for each: leave "
            "--format json out, or ask proccorpus sql for scores"
        )
    from eval.runners.start import located_runner  # imports torch
    from pipeline.reward_model import benchmark_step

    # A benchmark that is not a release's needs none, and no workspace that is there already
    is_of_release = options.benchmark in BENCHMARKS and BENCHMARKS[options.benchmark].of_release
    lake = (lake_at if is_of_release else open_lake)(space)
    frozen = get_release(lake, release) if is_of_release or release else None
    runner = located_runner(lake, options, model)
    result = Result()
    for name in (options.benchmark, *(CHECKS if checks else ())):
        print_result(result)
        config = replace(runner, options=options.model_copy(update={"benchmark": name}))
        with progress():
            evaluation, outcome = benchmark_step(lake, config, frozen)
        if frozen is None or outcome is None or name != HELD_OUT:
            result = _scores(evaluation)
        else:
            result = _held_out(lake, frozen.name)
            note(f"report: {evaluation.page}")
    return result


def _scores(evaluation: Any) -> Result:
    """The scores of a model and the baselines; of one part of several, only where its predictions
    are."""
    note(f"predictions: {evaluation.predictions}")
    warn(evaluation.notes, "left out")
    if not evaluation.entries:
        note("this part is done; the one that ends last scores them all")
        return Result()
    whole = {
        "eval_run": evaluation.run,
        "settings": dict(evaluation.settings),
        "models": evaluation.facts(),
    }
    note(f"report: {evaluation.page}")
    return Result(evaluation.rows(), whole=whole)


def _held_out(lake: Lake, release: str) -> Result:
    """All scores of a release; for people the main ones, those on episodes that a model was trained
    on apart."""
    sql = (
        "SELECT benchmark, slice, model, metric, value, low, high, n, coverage, seen_episodes FROM leaderboard "
        "WHERE release = ? AND (slice = 'all' OR slice LIKE 'split %') ORDER BY ALL"
    )
    rows = lake.dicts(sql, [release])
    if AS_JSON.get():
        return Result(rows)
    # The report has more
    rows = [row for row in rows if row["metric"] in metrics_shown_in(TERMINAL)]
    seen_rows = [row for row in rows if row["seen_episodes"]]
    unseen = Result([row for row in rows if not row["seen_episodes"]])
    if not seen_rows:
        return unseen
    print_result(unseen)
    say("Scored on episodes that the model was trained on; these say nothing of new runs:")
    return Result(seen_rows)


OF_FILES = [name for name, benchmark in BENCHMARKS.items() if benchmark.question]
BenchmarkOption = Annotated[
    str,
    Option(
        help=f"Benchmark that the predictions answer: {', '.join(OF_FILES)}.",
        autocompletion=lambda: OF_FILES,
    ),
]
AsPublishedOption = Annotated[
    bool, Option(help="Score as ProgressLM's own evaluation does, with its defects.")
]


@command("eval score")
def eval_score(
    space: Space,
    benchmark: BenchmarkOption,
    predictions: Annotated[
        Path, Option(help='JSON lines: {"meta_data": {...}, "response": "..."}, of any system.')
    ],
    as_published: AsPublishedOption = False,
    store: Annotated[bool, Option(help="Store the file and its scores in the workspace.")] = False,
    stored_as: Annotated[
        str | None,
        Option("--model", help="Name of the model, for --store; default: the file's name."),
    ] = None,
) -> Result:
    """Score a prediction file. Needs no workspace, and writes to one only with --store."""
    scored = score_predictions(benchmark, read_predictions(predictions), as_published)
    # Only stored scores need the lake: scoring a file works on a machine without a workspace
    if store:
        name = stored_as or predictions.stem
        settings = {"file": predictions.name, "as_published": as_published}
        lake = open_lake(space)
        scored = replace(scored, model=name)
        run = store_scores(lake, scored, predictions.read_bytes(), settings)
        note(f"stored as {run}, model {name}")
    # The table shows the whole and its parts; JSON has every slice
    rows = [
        {"slice": part, "metric": metric} | score.__dict__
        for (part, metric), score in scored.scores.items()
        if part == ALL or part.startswith("part ")
    ]
    counts = (f"{n} {count_name.replace('_', ' ')}" for count_name, n in scored.counts.items())
    lines = [", ".join(counts), *(f"not scored: {line}" for line in scored.notes)]
    return Result(rows, whole=scored.facts(), lines=lines)


@command("eval compare")
def eval_compare(
    first: Annotated[Path, Argument(help="A prediction file.")],
    second: Annotated[Path, Argument(help="Another model's predictions for the same questions.")],
    benchmark: BenchmarkOption,
    as_published: AsPublishedOption = False,
) -> Result:
    """Compare two models: difference of scores, paired over episodes, with bootstrap interval and
    p-value."""
    scored, other_scores = (
        score_predictions(benchmark, read_predictions(f), as_published) for f in (first, second)
    )
    comparison = model_comparison(scored, other_scores)
    # The comparison is paired by episode: without common ones there is no pair
    if not comparison.common:
        raise UserError(f"{first} and {second} have no episode in common")
    rows = [
        {"metric": metric} | difference.__dict__
        for metric, difference in comparison.differences.items()
        if difference.n
    ]
    whole = comparison.__dict__ | {"benchmark": benchmark, "differences": rows}
    counts = f"{comparison.only_first} only in the first, {comparison.only_second} in the second"
    return Result(rows, whole=whole, lines=[f"{comparison.common} episodes in both; {counts}"])


@command("annotators compare")
def annotators_compare(
    lake: WriteLake,
    run: Annotated[
        str | None, Option(help="Only this label run (the beginning of its id).")
    ] = None,
    against: Annotated[str | None, Option(help="Another label run to compare with.")] = None,
    truth: Annotated[
        Path | None, Option(help="Folder of hand-labelled files, with one folder per dataset.")
    ] = None,
    dataset: Annotated[list[str] | None, Option(help="Only this dataset; repeatable.")] = None,
    every: Annotated[
        bool, Option("--all", help="Show every metric, not only the main ones.")
    ] = False,
) -> Result:
    """Score label runs against ground truth, or else against the active label.

    Loads a language model, which takes some seconds.
    """
    if truth and against:
        raise UserError("--truth and --against exclude each other")
    if truth and not truth.is_dir():
        raise UserError(f"--truth {truth}: there is no such folder")
    comparison, _ = comparison_step(
        lake, truth, run=run, against=TRUTH if truth else against, datasets=dataset or ()
    )
    if AS_JSON.get():
        return Result(_comparison_json(comparison))
    if not comparison.labellers:
        return Result([], empty="Nothing to compare: one label run, and no ground truth.")
    _show_comparison(comparison, every)
    return Result()


def _show_comparison(comparison: Comparison, all_metrics: bool) -> None:
    """A table per dataset and reference, and what it says in words."""
    for (dataset, reference), labellers in groups(comparison.labellers).items():
        print(f"{dataset}, against {reference_words(reference)}")
        rows = metric_table(labellers) if all_metrics else short_table(labellers)
        show(rows, hidden=("dataset", "against"))
        lines = conclusions(labellers) + [
            farthest(difference) for difference in comparison.apart if difference.dataset == dataset
        ]
        print("\n".join(lines) + "\n")
    for dataset, count in comparison.without.items():
        say(f"{dataset}: {count} episodes of the truth are not in the corpus, or not usable")


def _comparison_json(comparison: Comparison) -> Facts:
    scores = []
    for labeller in comparison.labellers:
        scores += labeller.rows()
    gaps = []
    for labellers in groups(comparison.labellers).values():
        for place, first in enumerate(labellers):
            for second in labellers[place + 1 :] if first.label_run else ():
                names = {"dataset": first.dataset, "labels_by": first.model, "beside": second.model}
                gaps += [
                    names | {"metric": metric} | vars(gap)
                    for metric, gap in differences(first, second).items()
                ]
    return {
        "scores": scores,
        "differences": gaps,
        "farthest_apart": [
            vars(difference) | {"episodes": list(map(vars, difference.episodes))}
            for difference in comparison.apart
        ],
        "episodes_of_truth_left_out": dict(comparison.without),
    }
