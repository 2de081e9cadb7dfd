"""What the asset `evaluation` asks for, by its run configuration."""

from pathlib import Path

import pytest

from assets.lib.model_configs import EvaluationConfig
from core.errors import UserError
from eval.benchmarks.configs import configs
from eval.benchmarks.run import BenchmarkConfig
from eval.runners.prompt import Sampling
from eval.runners.start import RunnerConfig


def test_a_plain_configuration_asks_our_questions_of_one_copy() -> None:
    asked, runner = configs(EvaluationConfig.model_validate({"benchmark": "procvqa-id"}).options(), "m")
    assert asked == BenchmarkConfig("procvqa-id")
    assert runner == RunnerConfig("m")


def test_prompts_copies_and_sampling_are_passed_on() -> None:
    config = EvaluationConfig.model_validate(
        {
            "benchmark": "progress-bench",
            "runner": "vllm",
            "prompts": "/prompts/published",
            "data_parallel": 4,
            "data": "/bench",
            "limit": 3,
            "num_inferences": 2,
            "temperature": 0.6,
            "top_p": 0.9,
            "top_k": 50,
            "seed": 1,
            "max_tokens": 4096,
            "baselines": ["direct"],
        }
    )
    asked, runner = configs(config.options(), "m")
    assert asked == BenchmarkConfig(
        "progress-bench",
        "/bench",
        limit=3,
        inferences=2,
        vlm_baselines=("direct",),
        prompts=Path("/prompts/published"),
    )
    assert runner.engine.data_parallel_size == 4
    assert runner.sampling == Sampling(0.6, 4096, None, 0.9, 50, 1.0, 1)


def test_copies_that_nothing_would_start_are_refused() -> None:
    with pytest.raises(UserError, match="4 copies of the model"):
        configs(EvaluationConfig.model_validate({"benchmark": "procvqa-id", "data_parallel": 4}).options(), "m")
