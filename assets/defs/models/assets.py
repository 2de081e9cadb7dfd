"""From the corpus to scores: release, reward model, evaluation, leaderboard, and the comparison of annotators.

What they do is in assets/closing.py and assets/comparison.py.
"""

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
from assets.resources import Corpus

OWNERS = ["team:models"]


class ReleaseConfig(dg.Config):
    """Which release to work with."""

    name: str = DEMO_RELEASE


class NewReleaseConfig(ReleaseConfig):
    """`allow_licences`: such as cc-by-nc-4.0 or unknown; datasets whose licence is neither open nor named stay out."""

    allow_licences: list[str] = Field(default_factory=list)


class TrainingConfig(ReleaseConfig):
    """Which recipe to train; `always` trains even when that very model exists."""

    recipe: str = DEMO_RECIPE
    always: bool = False


def _result(context: dg.AssetExecutionContext, outcome: Outcome) -> dg.MaterializeResult:
    if not outcome.made:
        context.log.info(f"{outcome.asset} was up to date: nothing was made again")
    return dg.MaterializeResult(metadata=outcome_metadata(outcome), data_version=dg.DataVersion(outcome.version))


@dg.asset(deps=["shards"], group_name="models", kinds={"ducklake"}, owners=OWNERS)
def release(context: dg.AssetExecutionContext, corpus: Corpus, config: NewReleaseConfig) -> dg.MaterializeResult:
    """The corpus frozen under a name: a lake snapshot, a shard list and a card."""
    return _result(context, release_step(corpus.lake(), config.name, config.allow_licences))


@dg.asset(deps=["release"], group_name="models", kinds={"pytorch", "huggingface"}, owners=OWNERS)
def reward_model(context: dg.AssetExecutionContext, corpus: Corpus, config: TrainingConfig) -> dg.MaterializeResult:
    """A progress reward model trained on a release's train split, with its loss curve."""
    from training.recipe import load_recipe
    from warehouse.releases import get_release

    lake = corpus.lake()
    frozen, recipe = get_release(lake, config.name), load_recipe(config.recipe)
    return _result(context, reward_model_step(lake, frozen, recipe, always=config.always))


@dg.asset(deps=["reward_model"], group_name="models", kinds={"pytorch"}, owners=OWNERS)
def evaluation(context: dg.AssetExecutionContext, corpus: Corpus, config: TrainingConfig) -> dg.MaterializeResult:
    """The model and the baselines on held-out episodes, against labels and ground truth, with a report."""
    from training.recipe import load_recipe
    from training.train import training_run_id
    from warehouse.releases import get_release

    lake = corpus.lake()
    frozen = get_release(lake, config.name)
    run = training_run_id(load_recipe(config.recipe), frozen)
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
