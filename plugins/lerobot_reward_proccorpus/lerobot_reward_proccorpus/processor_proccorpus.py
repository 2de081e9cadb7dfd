"""LeRobot's pipelines around the model: a batch dimension alone, for the model does what its training did."""

from typing import Any

from lerobot.processor import (
    AddBatchDimensionProcessorStep,
    PolicyAction,
    PolicyProcessorPipeline,
    policy_action_to_transition,
)
from lerobot.utils.constants import (
    POLICY_POSTPROCESSOR_DEFAULT_NAME,
    POLICY_PREPROCESSOR_DEFAULT_NAME,
)

from lerobot_reward_proccorpus.configuration_proccorpus import ProccorpusConfig

Before = PolicyProcessorPipeline[dict[str, Any], dict[str, Any]]
After = PolicyProcessorPipeline[PolicyAction, PolicyAction]


def make_proccorpus_pre_post_processors(
    config: ProccorpusConfig, dataset_stats: dict[str, dict[str, Any]] | None = None
) -> tuple[Before, After]:
    """`dataset_stats` are not used: pictures are scaled as in training."""
    before = Before(steps=[AddBatchDimensionProcessorStep()], name=POLICY_PREPROCESSOR_DEFAULT_NAME)
    after = After(
        steps=[], name=POLICY_POSTPROCESSOR_DEFAULT_NAME, to_transition=policy_action_to_transition
    )
    return before, after
