"""The steps `reward_model` and `evaluation`: a recipe trained on a release, scores of a model with a report; and the
whole second half in order. Imports torch.
"""

import math
import os
from collections.abc import Callable, Collection, Iterator, Sequence
from pathlib import Path

import torch

from core.errors import UserError
from core.figures import render
from eval.benchmarks.options import EvaluationOptions
from eval.benchmarks.run import evaluate_benchmark
from eval.held_out.episodes import held_out
from eval.held_out.evaluate import (
    BATCH,
    VALIDATION,
    calibrate_checkpoint,
    evaluate_all,
    main_slices,
    store,
)
from eval.held_out.within import scorer_of
from eval.report.pages import curves_figure, write_report
from eval.report.tables import Report, score_rows, varied_episodes
from eval.runners.start import RunnerConfig, local_runner
from eval.scored import eval_run_id
from pipeline.comparison import TRUTH
from pipeline.model_check import merge_adapter
from pipeline.outcome import StepOutcome
from pipeline.release import (
    found_evaluation,
    leaderboard_step,
    main_scores,
    model_outcome,
    release_step,
    report_pages,
)
from training.card import add_scores
from training.folder import CARD, read_card
from training.published import MERGED
from training.recipe import Recipe, load_recipe
from training.runs import (
    Point,
    begin_wandb,
    newest_model,
    recorded,
    resumable,
    trained,
    training_run_id,
)
from training.train import train
from training.trained_on import seen_among, seen_text
from warehouse.lake import Lake
from warehouse.releases.release import Release, get_release

HELD_OUT = ("test_id", "test_ood")
EPISODES = 3  # whose curves the event of an evaluation shows


def closing_steps(
    lake: Lake,
    name: str,
    recipe: Recipe,
    on_step: Callable[[Point], None] = lambda point: None,
    licences: Collection[str] = (),
) -> list[StepOutcome]:
    """The whole second half, in order: release, reward model, evaluation, leaderboard; otherwise as scoring_steps."""
    release_made = release_step(lake, name, licences)
    release = get_release(lake, name)
    model = reward_model_step(lake, release, recipe, on_step=on_step)
    return [
        release_made,
        model,
        evaluation_step(lake, release, model.version),
        leaderboard_step(lake),
    ]


def scoring_steps(lake: Lake, name: str, licences: Collection[str] = ()) -> list[StepOutcome]:
    """The second half without training: release, the newest model's scores on it where there is one, leaderboard.

    licences: those allowed beside open ones; datasets under others are left out, and named. Raises ReleaseError.
    """
    release_outcome = release_step(lake, name, licences)
    model = newest_model(lake)
    scored = [evaluation_step(lake, get_release(lake, name), model)] if model else []
    return [release_outcome, *scored, leaderboard_step(lake)]


def reward_model_step(
    lake: Lake,
    release: Release,
    recipe: Recipe,
    *,
    always: bool = False,
    on_step: Callable[[Point], None] = lambda point: None,
    resume: bool = False,
    wandb: bool = False,
) -> StepOutcome:
    """Train the recipe on a release unless that very model exists (`always` trains all the same, `resume` goes on).

    `wandb`: the curve goes to Weights & Biases, too.
    """
    run = training_run_id(recipe, release)
    folder = None if always else trained(lake, run)
    is_new = folder is None
    is_first = os.environ.get("RANK", "0") == "0"  # of torchrun's processes
    if folder is None:
        scorer = scorer_of(
            lake, release, recipe
        )  # before the model is loaded: a release may have nothing held out
        log = None
        if wandb and is_first:
            config = recipe.model_dump(mode="json")
            log = begin_wandb(
                lake.workspace.root / "wandb", run, config | {"release": release.name}, resume
            )
        with recorded(lake, run, on_step, log) as step:
            folder = train(lake, release, recipe, step, resume, scorer).checkpoint
        if is_first:
            best = read_card(folder).get("best")
            for checkpoint in (folder, folder.with_name(best["model"])) if best else (folder,):
                calibrate_checkpoint(lake, release, checkpoint)
    outcome = model_outcome(run, release.name, folder, is_new)
    assert outcome is not None, f"{folder} has no curve of its training"
    return outcome


def chained_steps(
    lake: Lake,
    release: Release,
    recipes: Sequence[str],
    model: Path | None,
    on_step: Callable[[Point], None] = lambda point: None,
) -> Iterator[StepOutcome]:
    """Train recipes one after the other, each from the model before; adapters are merged in between. What is there
    already is not made again, and what was interrupted goes on. All processes of torchrun call it. Raises UserError."""
    for name in recipes:
        recipe = load_recipe(name, model)
        resume = resumable(lake.workspace, recipe, release)
        outcome = reward_model_step(lake, release, recipe, on_step=on_step, resume=resume)
        model = outcome.files[0]
        if recipe.lora and name != recipes[-1]:
            model = _merged(lake, model)
        yield outcome


def _merged(lake: Lake, adapter: Path) -> Path:
    """The whole model of an adapter, merged by the first process where it is not there yet."""
    whole = adapter.with_name(adapter.name + MERGED)
    if os.environ.get("RANK", "0") == "0" and not (whole / CARD).exists():
        merge_adapter(lake.workspace, adapter, None)
    if torch.distributed.is_initialized():
        torch.distributed.barrier()
    return whole


def evaluation_step(lake: Lake, release: Release, run: str, *, always: bool = False) -> StepOutcome:
    """Score a trained model and the baselines on the held-out episodes of its release; writes the report."""
    main_run = eval_run_id(run, "held-out", release.config_hash)
    folder = lake.workspace.root / "evals" / main_run
    stored_evaluation = None if always else found_evaluation(lake, main_run, run)
    if stored_evaluation:
        return stored_evaluation
    checkpoint = trained(lake, run)
    if checkpoint is None:
        raise FileNotFoundError(
            f"the model {run} is not trained: materialise reward_model, or proccorpus train"
        )
    model_card = read_card(checkpoint)
    runner = local_runner(RunnerConfig(run, EvaluationOptions(batch_size=BATCH)), checkpoint)
    truth = TRUTH if TRUTH.exists() else None
    episodes = held_out(lake, release, HELD_OUT, truth)
    if not episodes:
        raise UserError(
            f"release {release.name} holds no run out of training ({', '.join(HELD_OUT)}), so nothing can be scored: "
            "build more runs, or score an episode (proccorpus reward)"
        )
    # Thresholds are chosen on other episodes than scores are read from
    validation = held_out(lake, release, (VALIDATION,))
    results = evaluate_all(run, runner, episodes, validation)
    seen_episodes = seen_among(lake, model_card, release, [e.key for e in episodes])
    store(
        lake, release.name, release.config_hash, results, episodes, runner.settings, seen_episodes
    )
    seen_note = seen_text(seen_episodes, len(episodes), model_card.get("release"))
    notes = [
        f"Release {release.name}, snapshot {release.snapshot}; {seen_note}; {model_card['parameters']:,} parameters."
    ]
    if model_card["recipe"]["model"].get("tiny") or model_card["recipe"]["model"].get("laptop"):
        notes.append(
            "A model this small has learnt from nothing but this corpus: it knows these scenes from "
            "this camera. It cannot follow a new instruction, judge another robot, or explain itself in words."
        )
    last_pictures = {
        (e.episode.dataset, str(e.episode.episode_index)): [q.pictures[-1] for q in e.questions]
        for e in episodes
    }

    def stills(key: tuple[str, ...]) -> list[bytes]:
        return [picture.read() for picture in last_pictures.get((key[0], key[1]), ())]

    report = Report(run, results, main_slices(results), notes, stills)
    write_report(folder, report)
    rows = score_rows(report.entries, report.parts)
    scores = main_scores(lake, run)
    add_scores(checkpoint, f"held-out episodes of release {release.name}", scores)
    numbers = (
        scores
        | {"rows": len(rows)}
        | seen_episodes.by_slice({"seen_in_training": [e.key for e in episodes]})
    )
    picture = render(curves_figure(report, results[0], varied_episodes(results[0], EPISODES)))
    return StepOutcome("evaluation", main_run, True, numbers, picture, report_pages(folder))


def benchmark_step(
    lake: Lake,
    options: EvaluationOptions,
    runner: RunnerConfig,
    release: Release | None,
    on_rows: Callable[[str, int, int], None] = lambda name, done, of: None,
) -> StepOutcome:
    """Evaluate a model on a benchmark; the outcome has its scores, a table with the baselines, and curves."""
    evaluation = evaluate_benchmark(lake, options, runner, release, on_rows)
    assert evaluation.report is not None, "without shards an evaluation ends with its report"
    assert evaluation.page is not None
    model_entry = evaluation.entries[0]
    numbers: dict[str, int | float | str] = {
        "eval_run": evaluation.run,
        "predictions": str(evaluation.predictions),
    }
    for (part, metric), score in model_entry.scores.items():
        if part == "all" and not math.isnan(score.value):
            numbers[metric] = round(score.value, 4)
    picture = b""
    series = model_entry.scored.series
    if series is not None and len(series.runs.target):
        picture = render(
            curves_figure(evaluation.report, model_entry, varied_episodes(model_entry, EPISODES))
        )
    table = tuple({k: str(v) for k, v in row.items()} for row in evaluation.rows())
    files = (evaluation.page, evaluation.predictions)
    return StepOutcome("evaluation", evaluation.run, True, numbers, picture, files, table)
