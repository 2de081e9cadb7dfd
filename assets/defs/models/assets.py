"""From the corpus to scores: release, reward model, evaluation, leaderboard, and the comparison of annotators.

What they do is in pipeline/{release,reward_model,comparison}.py.
"""

from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from types import ModuleType
from typing import Any

import dagster as dg

from assets.defs.resources import CorpusResource
from assets.lib.events import RELEASABLE, check_result, chunks, described, made
from assets.lib.model_configs import (
    EvaluationConfig,
    NewReleaseConfig,
    RewardModelConfig,
    RewardsConfig,
)
from core.domain.label_run import LabelGate
from core.errors import UserError
from core.paths import ROOT
from pipeline.comparison import comparison_step
from pipeline.release import leaderboard_step, release_step
from warehouse.lake.checks import GUARDS
from warehouse.releases.contents import ReleaseError, contents

OWNERS = ["team:models"]
# Where they are made
MODELS = ROOT / "pipeline" / "reward_model.py"
REWARDS = ROOT / "pipeline" / "episode_rewards.py"
OF_SCORES = "eval_scores", "eval_runs", "eval_predictions"
# Schedule `weekly` releases each week: a warning after two that were missed, and a failure after a month
WEEKLY = dg.FreshnessPolicy.time_window(
    fail_window=timedelta(days=31), warn_window=timedelta(days=14)
)
# A chunk that is registered and not built yet holds up nothing that is made of the others
DEPS_THERE = ~dg.AutomationCondition.any_deps_missing()
KEPT_CURRENT = dg.AutomationCondition.eager().without(DEPS_THERE).with_label("kept current")


def _about(
    kinds: set[str], *tables: str, code: Callable | Path, cost: str = "cpu", group: str = "models"
) -> dict[str, Any]:
    """What every asset says about itself, as arguments of `dg.asset`. `cost`: what is paid with."""
    about = {"kinds": kinds, "group_name": group, "owners": OWNERS, "tags": {"cost": cost}}
    return about | {"metadata": described(*tables, code=code)}


def models() -> ModuleType:
    """What the assets of models do: imported when one is made, since it imports torch."""
    from assets.lib import models

    return models


@dg.asset(
    deps=["shards"],
    check_specs=[
        dg.AssetCheckSpec(
            guard.name, asset="release", blocking=guard.is_blocking, description=guard.description
        )
        for guard in GUARDS
    ],
    freshness_policy=WEEKLY,
    **_about({"ducklake"}, "releases", "release_shards", code=release_step),
)
def release(
    context: dg.AssetExecutionContext, corpus: CorpusResource, config: NewReleaseConfig
) -> Iterator[dg.AssetCheckResult | dg.MaterializeResult]:
    """The corpus frozen under a name: a lake snapshot, a shard list and a card. None while a check fails.

    A dataset of which a blocking check fails is left out, and named; the others are released.
    """
    lake = corpus.lake()
    broken = []
    gate = LabelGate(config.min_confidence, config.min_name_confidence)
    # What nobody may release is checked, too, where nothing is left
    try:
        datasets = contents(lake, config.allow_licences, gate).datasets
    except ReleaseError as e:
        datasets = None
        broken = [str(e)]
    # All checks are run and reported, also after one that fails: a person mends them in one go
    for guard in GUARDS:
        outcome = guard.run(lake, datasets)
        yield check_result(guard, outcome)
        broken += [] if outcome.passed else [outcome.detail]
    if broken:
        raise dg.Failure(f"nothing was released: {'; '.join(broken)}", allow_retries=False)
    yield made(context, release_step(lake, config.name, config.allow_licences, gate))


@dg.asset_check(asset="release", name=RELEASABLE)
def releasable(corpus: CorpusResource) -> dg.AssetCheckResult:
    """Something is there that a release may hold, by the licences that the configuration allows. Nights say so, too."""
    try:
        release_contents = contents(corpus.lake(), corpus.licences())
    except UserError as e:
        return dg.AssetCheckResult(passed=False, description=str(e))
    return dg.AssetCheckResult(
        passed=True, description=f"datasets: {', '.join(release_contents.datasets)}"
    )


@dg.asset(
    deps=["release"],
    **_about(
        {"pytorch", "huggingface"},
        "training_runs",
        "training_points",
        "checkpoints",
        code=MODELS,
        cost="gpu",
    ),
)
def reward_model(
    context: dg.AssetExecutionContext, corpus: CorpusResource, config: RewardModelConfig
) -> dg.MaterializeResult:
    """A progress reward model trained on a release's train split, with its loss curve; a job of its own."""
    return models().train(context, corpus.lake(), config)


@dg.asset(
    deps=["reward_model"],
    freshness_policy=WEEKLY,
    **_about({"pytorch"}, *OF_SCORES, code=MODELS, cost="gpu"),
)
def evaluation(
    context: dg.AssetExecutionContext, corpus: CorpusResource, config: EvaluationConfig
) -> dg.MaterializeResult:
    """A model and the baselines on held-out episodes, against labels and ground truth, or on a benchmark."""
    return models().evaluate(context, corpus.lake(), config)


@dg.asset(
    deps=["reward_model", "frames"],
    partitions_def=chunks,
    **_about(
        {"pytorch"}, "eval_predictions", "eval_runs", code=REWARDS, cost="gpu", group="rewards"
    ),
)
def rewards(
    context: dg.AssetExecutionContext, corpus: CorpusResource, config: RewardsConfig
) -> dg.MaterializeResult:
    """A model's progress on the episodes of a chunk, for RA-BC's export; what was scored is not scored again."""
    return models().score(context, corpus.lake(), config)


@dg.asset(
    deps=["evaluation"],
    automation_condition=KEPT_CURRENT,
    freshness_policy=WEEKLY,
    **_about({"duckdb"}, "eval_scores", "eval_runs", code=leaderboard_step),
)
def leaderboard(context: dg.AssetExecutionContext, corpus: CorpusResource) -> dg.MaterializeResult:
    """Every evaluated model and baseline, side by side."""
    return made(context, leaderboard_step(corpus.lake()))


@dg.asset(
    deps=["progress"],
    automation_condition=KEPT_CURRENT,
    **_about({"duckdb"}, *OF_SCORES, code=comparison_step),
)
def annotator_comparison(
    context: dg.AssetExecutionContext, corpus: CorpusResource
) -> dg.MaterializeResult:
    """Every label run against ground truth, or against the active label where there is none, with intervals."""
    return made(context, comparison_step(corpus.lake())[1])
