"""From the corpus to scores: release, reward model, evaluation, leaderboard, and the comparison of annotators.

What they do is in pipeline/{release,reward_model,comparison}.py.
"""

from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from types import ModuleType

import dagster as dg

from annotate.label_gate import LabelGate
from assets.defs.corpus.partitions import chunks
from assets.defs.resources import CorpusResource
from assets.lib.events import described, made, numbers_metadata
from assets.lib.model_configs import EvaluationConfig, NewReleaseConfig, RewardModelConfig, RewardsConfig
from core.paths import ROOT
from pipeline.checks import GUARDS, first_words
from pipeline.comparison import comparison_step
from pipeline.release import leaderboard_step, release_step

OWNERS = ["team:models"]
MODELS = Path("pipeline", "reward_model.py")  # where they are made
CPU, GPU = {"cost": "cpu"}, {"cost": "gpu"}  # what is paid with
# Schedule `weekly` releases each week: a warning after two that were missed, and a failure after a month
WEEKLY = dg.FreshnessPolicy.time_window(fail_window=timedelta(days=31), warn_window=timedelta(days=14))
KEPT_CURRENT = dg.AutomationCondition.eager().with_label("kept current")


def models() -> ModuleType:
    """What the assets of models do: imported when one is made, since it imports torch."""
    from assets.lib import models

    return models


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
    context: dg.AssetExecutionContext, corpus: CorpusResource, config: NewReleaseConfig
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
    yield made(context, release_step(lake, config.name, config.allow_licences, gate))


@dg.asset(
    deps=["release"],
    group_name="models",
    kinds={"pytorch", "huggingface"},
    owners=OWNERS,
    tags=GPU,
    metadata=described("training_runs", "training_points", "checkpoints", code=ROOT / MODELS),
)
def reward_model(
    context: dg.AssetExecutionContext, corpus: CorpusResource, config: RewardModelConfig
) -> dg.MaterializeResult:
    """A progress reward model trained on a release's train split, with its loss curve; a job of its own."""
    return models().train(context, corpus.lake(), config)


@dg.asset(
    deps=["reward_model"],
    group_name="models",
    kinds={"pytorch"},
    owners=OWNERS,
    tags=GPU,
    metadata=described("eval_scores", "eval_runs", "eval_predictions", code=ROOT / MODELS),
    freshness_policy=WEEKLY,
)
def evaluation(
    context: dg.AssetExecutionContext, corpus: CorpusResource, config: EvaluationConfig
) -> dg.MaterializeResult:
    """A model and the baselines on held-out episodes, against labels and ground truth, or on a benchmark."""
    return models().evaluate(context, corpus.lake(), config)


@dg.asset(
    deps=["reward_model", "frames"],
    partitions_def=chunks,
    group_name="rewards",
    kinds={"pytorch"},
    owners=OWNERS,
    tags=GPU,
    metadata=described("eval_predictions", "eval_runs", code=ROOT / "pipeline" / "episode_rewards.py"),
)
def rewards(context: dg.AssetExecutionContext, corpus: CorpusResource, config: RewardsConfig) -> dg.MaterializeResult:
    """A model's progress on the episodes of a chunk, for RA-BC's export; what was scored is not scored again."""
    return models().score(context, corpus.lake(), config)


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
def leaderboard(context: dg.AssetExecutionContext, corpus: CorpusResource) -> dg.MaterializeResult:
    """Every evaluated model and baseline, side by side."""
    return made(context, leaderboard_step(corpus.lake()))


@dg.asset(
    deps=["progress"],
    group_name="models",
    kinds={"duckdb"},
    owners=OWNERS,
    tags=CPU,
    metadata=described("eval_scores", "eval_runs", "eval_predictions", code=comparison_step),
    automation_condition=KEPT_CURRENT,
)
def annotator_comparison(context: dg.AssetExecutionContext, corpus: CorpusResource) -> dg.MaterializeResult:
    """Every label run against ground truth, or against the active label where there is none, with intervals."""
    return made(context, comparison_step(corpus.lake())[1])
