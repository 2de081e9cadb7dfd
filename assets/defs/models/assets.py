"""From the corpus to scores: release, reward model, evaluation, leaderboard, and the comparison of annotators.

What they do is in pipeline/release_cycle.py and pipeline/comparison.py.
"""

from collections.abc import Iterator
from dataclasses import asdict
from datetime import timedelta
from pathlib import Path
from types import NoneType
from typing import TYPE_CHECKING, Any, get_args, get_origin

import dagster as dg
from pydantic import Field, ValidationError, create_model
from pydantic.fields import FieldInfo

from annotate.label_gate import LabelGate
from assets.defs.corpus.partitions import chunks, parse_chunk_key
from assets.defs.resources import Corpus
from assets.lib.events import described, numbers_metadata, outcome_metadata
from assets.lib.launch.job import Job, job_name
from assets.lib.launch.local import LocalLauncher
from assets.lib.launch.run import AnyLauncher, launch
from core.errors import UserError, validation_message
from core.paths import ROOT
from eval.benchmarks.options import EvaluationOptions
from pipeline.checks import GUARDS, first_words
from pipeline.comparison import comparison_step
from pipeline.evaluation import evaluation_step
from pipeline.leaderboard import leaderboard_step
from pipeline.outcome import Outcome
from pipeline.release import DEMO_RELEASE, release_step
from pipeline.reward_model import DEMO_RECIPE, reward_model_step
from warehouse.lake import Lake
from warehouse.releases import Release

if TYPE_CHECKING:
    from training.recipe import Recipe

OWNERS = ["team:models"]
CPU, GPU = {"cost": "cpu"}, {"cost": "gpu"}  # what is paid with
# Schedule `weekly` releases each week: a warning after two that were missed, and a failure after a month
WEEKLY = dg.FreshnessPolicy.time_window(fail_window=timedelta(days=31), warn_window=timedelta(days=14))
KEPT_CURRENT = dg.AutomationCondition.eager().with_label("kept current")


class ReleaseConfig(dg.Config):
    """Which release to work with."""

    name: str = DEMO_RELEASE


class NewReleaseConfig(ReleaseConfig):
    """`allow_licences`: such as cc-by-nc-4.0 or unknown; datasets whose licence is neither open nor named stay out.

    `min_confidence`, `min_name_confidence`: shards with samples of labels less sure stay out; 0: none does.
    """

    allow_licences: list[str] = Field(default_factory=list)
    min_confidence: float = 0.0
    min_name_confidence: float = 0.0


class TrainingConfig(ReleaseConfig):
    """Which model: of which recipe."""

    recipe: str = Field(default=DEMO_RECIPE, description="A built-in recipe's name, or a YAML file.")
    always: bool = Field(default=False, description="Do it even when that very model, or its scores, are there.")

    def loaded(self, begun_with: str = "") -> "Recipe":
        from training.recipe import load_recipe

        return load_recipe(self.recipe, Path(begun_with) if begun_with else None)


class RewardModelConfig(TrainingConfig):
    """What is trained, and where."""

    model: str = Field(default="", description="Folder of the checkpoint to begin with; for recipes that need one.")
    resume: bool = Field(
        default=True,
        description="Go on from the newest checkpoint of this very run where there is one; false: begin anew.",
    )
    wandb: bool = Field(default=False, description="The curve goes to Weights & Biases, too.")
    launch: AnyLauncher = Field(default=LocalLauncher(), description="Where: here, or on a cluster.")


def _for_dagster(field: FieldInfo) -> Any:
    """An option as a configuration has it: texts for paths and choices, lists for tuples."""
    kind, default = field.annotation, field.default
    if get_origin(kind) is tuple:
        kind, default = list[str], []
    elif not {kind, *get_args(kind)} & {int, float, bool}:
        kind = str | None if NoneType in get_args(kind) else str
    return kind, Field(default=default, description=field.description)


FIELDS: dict[str, Any] = {name: _for_dagster(field) for name, field in EvaluationOptions.model_fields.items()}


class EvaluationConfig(create_model("EvaluationFields", __base__=TrainingConfig, **FIELDS)):
    """What to evaluate on what, as the options of `proccorpus eval`. `model`: empty: the recipe's."""

    endpoint: str = Field(default="", description="OpenAI-compatible base that ends in /v1")

    def options(self) -> EvaluationOptions:
        """Empty texts, zeros and a wish to think stand for the default. Raises UserError."""
        given = {name: value for name, value in self if name in EvaluationOptions.model_fields}
        given |= {
            "endpoint": (self.endpoint,) if self.endpoint else (),
            "think": False if given["think"] is False else None,
        }
        stated = {name: value for name, value in given.items() if value or value is False}
        try:
            return EvaluationOptions.model_validate(stated)
        except ValidationError as e:
            raise UserError(validation_message(e)) from e


class RewardsConfig(TrainingConfig):
    """Which model scores. `model`: a training run, `latest`, or a checkpoint's folder; empty: the recipe's."""

    model: str = ""
    score_fps: float = Field(default=4.0, description="scored frames a second")


def _result(context: dg.AssetExecutionContext, outcome: Outcome) -> dg.MaterializeResult:
    if not outcome.made:
        context.log.info(f"{outcome.asset} was up to date: nothing was made again")
    return dg.MaterializeResult(metadata=outcome_metadata(outcome), data_version=dg.DataVersion(outcome.version))


@dg.asset(
    deps=["shards"],
    group_name="models",
    kinds={"ducklake"},
    owners=OWNERS,
    tags=CPU,
    metadata=described("releases", "release_shards", code=release_step),
    check_specs=[
        dg.AssetCheckSpec(name, asset="release", blocking=True, description=first_words(check))
        for name, check in GUARDS.items()
    ],
    freshness_policy=WEEKLY,
)
def release(
    context: dg.AssetExecutionContext, corpus: Corpus, config: NewReleaseConfig
) -> Iterator[dg.AssetCheckResult | dg.MaterializeResult]:
    """The corpus frozen under a name: a lake snapshot, a shard list and a card. None while a check fails."""
    lake, broken = corpus.lake(), []
    # All checks are run and reported, also after one that fails: a person mends them in one go
    for name, check in GUARDS.items():
        found = check(lake)
        yield dg.AssetCheckResult(
            passed=found.passed, check_name=name, description=found.detail, metadata=numbers_metadata(found.numbers)
        )
        broken += [] if found.passed else [found.detail]
    if broken:
        raise dg.Failure(f"nothing was released: {'; '.join(broken)}", allow_retries=False)
    gate = LabelGate(config.min_confidence, config.min_name_confidence)
    yield _result(context, release_step(lake, config.name, config.allow_licences, gate))


@dg.asset(
    deps=["release"],
    group_name="models",
    kinds={"pytorch", "huggingface"},
    owners=OWNERS,
    tags=GPU,
    metadata=described("training_runs", "training_points", "checkpoints", code=reward_model_step),
)
def reward_model(context: dg.AssetExecutionContext, corpus: Corpus, config: RewardModelConfig) -> dg.MaterializeResult:
    """A progress reward model trained on a release's train split, with its loss curve; a job of its own."""
    from training.finished import trained
    from training.train import forget_steps, training_run_id
    from warehouse.releases import get_release

    lake, recipe = corpus.lake(), config.loaded(config.model)
    frozen = get_release(lake, config.name)
    run = training_run_id(recipe, frozen)
    finished = trained(lake, run)
    if finished and not config.always:
        return _result(context, reward_model_step(lake, frozen, recipe))
    # Of a finished run the newest checkpoint is its end: there is nothing left to go on with
    if finished or not config.resume:
        forget_steps(lake.workspace, run)
    return launch(context, config.launch, training_job(context, lake, run, config))


def training_job(context: dg.AssetExecutionContext, lake: Lake, run: str, config: RewardModelConfig) -> Job:
    """The command that trains what a configuration says, and the folder of its job."""
    name = job_name("train", context.run_id[:8], run)
    recipe = str(Path(config.recipe).resolve()) if config.recipe.endswith((".yaml", ".yml")) else config.recipe
    more = ["--model", str(Path(config.model).resolve())] if config.model else []
    more += ["--wandb"] if config.wandb else []
    root = lake.workspace.root
    # Whoever begins the job again, Slurm or Kubernetes, gives the same arguments
    arguments = (
        "train",
        "--auto-resume",
        "--recipe",
        recipe,
        "--release",
        config.name,
        "--workspace",
        str(root),
        *more,
    )
    return Job(name, arguments, root, root / "jobs" / f"{name}-{context.retry_number}")


@dg.asset(
    deps=["reward_model"],
    group_name="models",
    kinds={"pytorch"},
    owners=OWNERS,
    tags=GPU,
    metadata=described("eval_scores", "eval_runs", "eval_predictions", code=evaluation_step),
    freshness_policy=WEEKLY,
)
def evaluation(context: dg.AssetExecutionContext, corpus: Corpus, config: EvaluationConfig) -> dg.MaterializeResult:
    """A model and the baselines on held-out episodes, against labels and ground truth, or on a benchmark."""
    from training.finished import named_model
    from training.train import training_run_id
    from warehouse.releases import get_release

    lake = corpus.lake()
    frozen = get_release(lake, config.name)
    options = config.options()
    run = named_model(lake, options.model) if options.model else training_run_id(config.loaded(), frozen)
    if options.benchmark != "held-out":
        return _result(context, _on_benchmark(context, lake, frozen, options, run))
    return _result(context, evaluation_step(lake, frozen, run, always=config.always))


def _on_benchmark(
    context: dg.AssetExecutionContext, lake: Lake, frozen: Release, options: EvaluationOptions, model: str
) -> Outcome:
    from eval.benchmarks.configs import configs
    from pipeline.benchmark import benchmark_step

    asked, runner = configs(options, model)

    # A line in the log now and then, where a terminal would have a bar
    def on_rows(name: str, done: int, of: int) -> None:
        if done % 100 == 0:
            context.log.info(f"{name}: {done} of {of}")

    return benchmark_step(lake, asked, runner.located(lake), frozen, on_rows)


@dg.asset(
    deps=["reward_model", "frames"],
    partitions_def=chunks,
    group_name="rewards",
    kinds={"pytorch"},
    owners=OWNERS,
    tags=GPU,
    metadata=described("eval_predictions", "eval_runs", code=ROOT / "pipeline" / "episode_rewards.py"),
)
def rewards(context: dg.AssetExecutionContext, corpus: Corpus, config: RewardsConfig) -> dg.MaterializeResult:
    """A model's progress on the episodes of a chunk, for RA-BC's export; what was scored is not scored again."""
    from eval.reward.open import ScorerConfig, open_scorer
    from pipeline.episode_rewards import chunk_episodes, score_episodes
    from pipeline.models import model_folder
    from training.train import training_run_id
    from warehouse.releases import get_release

    lake = corpus.lake()
    dataset, chunk = parse_chunk_key(context.partition_key)
    run = config.model or training_run_id(config.loaded(), get_release(lake, config.name))
    folder = model_folder(lake.workspace, run)
    with open_scorer(ScorerConfig(folder)) as scorer:
        scored = score_episodes(lake, scorer, folder.name, chunk_episodes(lake, dataset, chunk), config.score_fps)
    version = dg.DataVersion(f"{scored.run}-{scored.episodes}")
    return dg.MaterializeResult(metadata=asdict(scored), data_version=version)


@dg.asset(
    deps=["evaluation"],
    group_name="models",
    kinds={"duckdb"},
    owners=OWNERS,
    tags=CPU,
    metadata=described("eval_scores", "eval_runs", code=leaderboard_step),
    automation_condition=KEPT_CURRENT,
    freshness_policy=WEEKLY,
)
def leaderboard(context: dg.AssetExecutionContext, corpus: Corpus) -> dg.MaterializeResult:
    """Every evaluated model and baseline, side by side."""
    return _result(context, leaderboard_step(corpus.lake()))


@dg.asset(
    deps=["progress"],
    group_name="models",
    kinds={"duckdb"},
    owners=OWNERS,
    tags=CPU,
    metadata=described("eval_scores", "eval_runs", "eval_predictions", code=comparison_step),
    automation_condition=KEPT_CURRENT,
)
def annotator_comparison(context: dg.AssetExecutionContext, corpus: Corpus) -> dg.MaterializeResult:
    """Every label run against ground truth, or against the active label where there is none, with intervals."""
    return _result(context, comparison_step(corpus.lake())[1])
