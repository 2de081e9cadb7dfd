"""The steps `reward_model` and `evaluation`: a recipe trained on a release, scores of a model with a report; and the
whole second half in order. And a model adapted to one labelled or corrected episode. Imports torch.
"""

import math
import os
from collections.abc import Callable, Collection, Iterator, Sequence
from itertools import chain
from pathlib import Path
from tempfile import TemporaryFile

import torch

from annotate.config import SamplesConfig
from annotate.samples import procvqa
from core.errors import UserError
from core.figures import render
from eval.benchmarks.options import HELD_OUT, EvaluationOptions
from eval.benchmarks.run import Evaluation, evaluate_benchmark
from eval.report.pages import Report, curves_figure, varied_episodes
from eval.runners.checkpoint import BATCH
from eval.runners.start import RunnerConfig, located_runner
from eval.scored import ScoredBenchmark, eval_run_id
from eval.within import calibrate_checkpoint, scorer_of
from pipeline.config import DatasetBuild, built
from pipeline.model_check import merge_adapter
from pipeline.outcome import StepOutcome
from pipeline.picture_cache import PictureStore
from pipeline.reading import records_of
from pipeline.release import (
    found_evaluation,
    leaderboard_step,
    main_scores,
    model_outcome,
    release_step,
    report_pages,
)
from pipeline.stages.samples import labelled_episodes
from pipeline.stages.shards import PictureDecoder, picture_key
from training.card import add_scores
from training.folder import CARD, read_card
from training.published import MERGED
from training.recipe import Recipe, load_recipe
from training.runs import (
    Point,
    TrainingRun,
    begin_wandb,
    newest_model,
    recorded,
    resumable,
    trained,
    training_run_id,
)
from training.train import adapt, train
from warehouse.lake import Lake
from warehouse.lake.stored import coarse_keyframes, usable_episode
from warehouse.measured import MeasuredSource
from warehouse.releases.release import Release, get_release
from warehouse.shards.shard import Sample

OF_HELD_OUT = EvaluationOptions(batch_size=BATCH)
EPISODES = 3  # whose curves the event of an evaluation shows


def closing_steps(
    lake: Lake,
    name: str,
    recipe: Recipe,
    on_step: Callable[[Point], None] = lambda point: None,
    licences: Collection[str] = (),
) -> list[StepOutcome]:
    """The whole second half, in order: release, reward model, evaluation, leaderboard; otherwise as
    scoring_steps."""
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
    """Score a trained model and the baselines on the held-out episodes of its release; writes the
    report."""
    stored_run = eval_run_id(run, OF_HELD_OUT.benchmark, release.config_hash)
    evaluated = None if always else found_evaluation(lake, stored_run, run)
    if evaluated:
        return evaluated
    outcome = benchmark_step(lake, located_runner(lake, OF_HELD_OUT, run), release)[1]
    assert outcome is not None, "without shards an evaluation ends with its report"
    return outcome


def _curves(report: Report, entry: ScoredBenchmark) -> bytes:
    """Progress over time of some episodes; nothing where the benchmark has none."""
    if entry.series is None or not len(entry.series.target):
        return b""
    return render(curves_figure(report, entry, varied_episodes(entry, EPISODES)))


def benchmark_step(
    lake: Lake, runner: RunnerConfig, release: Release | None, **listeners: Callable
) -> tuple[Evaluation, StepOutcome | None]:
    """Evaluate a model on a benchmark; the outcome has its scores, a table with the baselines, and curves. None while
    other shards are at work."""
    evaluation = evaluate_benchmark(lake, runner, release, **listeners)
    if evaluation.report is None or evaluation.page is None:
        return evaluation, None
    entry = evaluation.entries[0]
    numbers: dict[str, int | float | str] = {
        "eval_run": evaluation.run,
        "predictions": str(evaluation.predictions),
    }
    for (part, metric), score in entry.scores.items():
        if part == "all" and not math.isnan(score.value):
            numbers[metric] = round(score.value, 4)
    if (
        entry.benchmark == HELD_OUT
        and release
        and runner.folder
        and (runner.folder / CARD).exists()
    ):
        scores = main_scores(lake, runner.model, evaluation.run)
        add_scores(runner.folder, f"held-out episodes of release {release.name}", scores)
        numbers |= scores | dict(evaluation.num_seen)
    picture = _curves(evaluation.report, entry)
    table = tuple({k: str(v) for k, v in row.items()} for row in evaluation.rows())
    pages = filter(Path.exists, report_pages(evaluation.page.parent))
    files = (*pages, evaluation.predictions)
    return evaluation, StepOutcome(
        "evaluation", evaluation.run, True, numbers, picture, files, table
    )


FAMILY = procvqa.PROGRESS


def adapt_to_episode(
    lake: Lake,
    dataset: str,
    episode_index: int,
    recipe: Recipe,
    on_step: Callable[[Point], None],
    *,
    count: int,
    seed: int = 0,
    resume: bool = False,
) -> tuple[TrainingRun, int]:
    """An adapter, or another laptop model, and the number of samples that it learned from; see episode_samples."""
    drawn = episode_samples(lake, dataset, episode_index, count, seed)
    return adapt(lake, drawn, f"{dataset}-{episode_index:06d}", recipe, on_step, resume), len(drawn)


def episode_samples(
    lake: Lake, dataset: str, episode_index: int, count: int, seed: int = 0
) -> list[Sample]:
    """Up to `count` moments of an episode with its progress by the active label, all states in their share.

    Seeded by dataset, episode and `seed`. Raises UserError where the episode is not there or has no label.
    """
    build = built(lake, dataset)
    chunk = usable_episode(lake.con, dataset, episode_index).chunk
    # Progress shows no run of another task
    episodes = labelled_episodes(lake, build, chunk, {})
    episode = next((e for e in episodes if e.episode.episode_index == episode_index), None)
    if episode is None:
        raise UserError(f"episode {episode_index} of {dataset} has no label: build {dataset} first")

    # The stage's own sampler, asked for progress alone
    config = SamplesConfig(
        progress_per_episode=count, segmentation_per_episode=0, actions_per_episode=0, seed=seed
    )
    samples = [sample for sample in procvqa.samples(episode, config) if sample["family"] == FAMILY]
    return _with_pictures(lake, build, episode_index, samples)


def _with_pictures(lake: Lake, build: DatasetBuild, episode: int, rows: list[dict]) -> list[Sample]:
    """Raises UserError where a picture cannot be had any more."""
    [record] = records_of(lake, build.name, [episode])
    # Moments share pictures: each is decoded once
    keys_of_rows = [[picture_key(picture) for picture in row["pictures"]] for row in rows]
    picture_keys = dict.fromkeys(chain.from_iterable(keys_of_rows))
    with TemporaryFile() as file:
        pictures = PictureStore(file)
        source = MeasuredSource(lake, build.source(lake.workspace.sources))
        keyframes = coarse_keyframes(lake, build.name, {episode})
        findings = PictureDecoder(lake, build, source, record, pictures, keyframes).decode(
            picture_keys
        )
        # One picture missing is an error here: the caller asked for this very episode
        if findings:
            raise UserError(f"episode {episode} of {build.name}: {findings[0].detail}")
        pairs = zip(rows, keys_of_rows, strict=True)
        return [Sample(row, tuple(map(pictures.get, keys))) for row, keys in pairs]
