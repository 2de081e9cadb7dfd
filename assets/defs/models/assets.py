"""From the corpus to scores: release, reward model, evaluation, leaderboard, and the comparison of annotators.

What they do is in assets/closing.py and assets/comparison.py.
"""

from pathlib import Path
from typing import TYPE_CHECKING

import dagster as dg
from pydantic import Field

from assets.closing import (
    DEMO_RECIPE,
    DEMO_RELEASE,
    Outcome,
    evaluation_step,
    leaderboard_step,
    release_step,
    reward_model_step,
)
from assets.events import outcome_metadata
from assets.launch.job import Job, job_name
from assets.launch.local import LocalLauncher
from assets.launch.run import AnyLauncher, launch
from assets.resources import Corpus
from warehouse.lake import Lake

if TYPE_CHECKING:
    from training.recipe import Recipe

OWNERS = ["team:models"]


class ReleaseConfig(dg.Config):
    """Which release to work with."""

    name: str = DEMO_RELEASE


class NewReleaseConfig(ReleaseConfig):
    """`allow_licences`: such as cc-by-nc-4.0 or unknown; datasets whose licence is neither open nor named stay out."""

    allow_licences: list[str] = Field(default_factory=list)


class TrainingConfig(ReleaseConfig):
    """Which model: of which recipe, from which checkpoint on."""

    recipe: str = Field(default=DEMO_RECIPE, description="A built-in recipe's name, or a YAML file.")
    model: str = Field(default="", description="Folder of the checkpoint to begin with; for recipes that need one.")
    always: bool = Field(default=False, description="Do it even when that very model, or its scores, are there.")

    def loaded(self) -> "Recipe":
        from training.recipe import load_recipe

        return load_recipe(self.recipe, Path(self.model) if self.model else None)


class RewardModelConfig(TrainingConfig):
    """What is trained, and where."""

    resume: bool = Field(default=False, description="Go on from the newest checkpoint of this very run.")
    launch: AnyLauncher = Field(default=LocalLauncher(), description="Where: here, or on a cluster.")


def _result(context: dg.AssetExecutionContext, outcome: Outcome) -> dg.MaterializeResult:
    if not outcome.made:
        context.log.info(f"{outcome.asset} was up to date: nothing was made again")
    return dg.MaterializeResult(metadata=outcome_metadata(outcome), data_version=dg.DataVersion(outcome.version))


@dg.asset(deps=["shards"], group_name="models", kinds={"ducklake"}, owners=OWNERS)
def release(context: dg.AssetExecutionContext, corpus: Corpus, config: NewReleaseConfig) -> dg.MaterializeResult:
    """The corpus frozen under a name: a lake snapshot, a shard list and a card."""
    return _result(context, release_step(corpus.lake(), config.name, config.allow_licences))


@dg.asset(deps=["release"], group_name="models", kinds={"pytorch", "huggingface"}, owners=OWNERS)
def reward_model(context: dg.AssetExecutionContext, corpus: Corpus, config: RewardModelConfig) -> dg.MaterializeResult:
    """A progress reward model trained on a release's train split, with its loss curve; a job of its own."""
    from training.train import trained, training_run_id
    from warehouse.releases import get_release

    lake, recipe = corpus.lake(), config.loaded()
    frozen = get_release(lake, config.name)
    run = training_run_id(recipe, frozen)
    if trained(lake, run) and not config.always:
        return _result(context, reward_model_step(lake, frozen, recipe))
    return launch(context, config.launch, training_job(context, lake, run, config))


def training_job(context: dg.AssetExecutionContext, lake: Lake, run: str, config: RewardModelConfig) -> Job:
    """The command that trains what a configuration says, and the folder of its job."""
    name = job_name("train", context.run_id[:8], run)
    recipe = str(Path(config.recipe).resolve()) if config.recipe.endswith((".yaml", ".yml")) else config.recipe
    more = ["--model", str(Path(config.model).resolve())] if config.model else []
    more += ["--resume"] if config.resume else []
    root = lake.workspace.root
    arguments = ("train", "--recipe", recipe, "--release", config.name, "--workspace", str(root), *more)
    return Job(name, arguments, root, root / "jobs" / f"{name}-{context.retry_number}")


@dg.asset(deps=["reward_model"], group_name="models", kinds={"pytorch"}, owners=OWNERS)
def evaluation(context: dg.AssetExecutionContext, corpus: Corpus, config: TrainingConfig) -> dg.MaterializeResult:
    """The model and the baselines on held-out episodes, against labels and ground truth, with a report."""
    from training.train import training_run_id
    from warehouse.releases import get_release

    lake = corpus.lake()
    frozen = get_release(lake, config.name)
    run = training_run_id(config.loaded(), frozen)
    return _result(context, evaluation_step(lake, frozen, run, always=config.always))


@dg.asset(deps=["evaluation"], group_name="models", kinds={"duckdb"}, owners=OWNERS)
def leaderboard(context: dg.AssetExecutionContext, corpus: Corpus) -> dg.MaterializeResult:
    """Every evaluated model and baseline, side by side."""
    return _result(context, leaderboard_step(corpus.lake()))


@dg.asset(deps=["progress"], group_name="models", kinds={"duckdb"}, owners=OWNERS)
def annotator_comparison(context: dg.AssetExecutionContext, corpus: Corpus) -> dg.MaterializeResult:
    """Every label run against ground truth, or against the active label where there is none, with intervals."""
    from assets.comparison import comparison_step

    return _result(context, comparison_step(corpus.lake())[1])
