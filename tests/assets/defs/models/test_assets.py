"""What the asset `evaluation` asks for, by its run configuration."""

import pytest

from assets.lib.model_configs import EvaluationConfig
from core.errors import UserError
from eval.benchmarks.configs import configs
from eval.benchmarks.run import BenchmarkConfig
from eval.runners.start import RunnerConfig


def test_a_plain_configuration_asks_our_questions_of_one_copy() -> None:
    asked, runner = configs(EvaluationConfig.model_validate({"benchmark": "procvqa-id"}).options(), "m")
    assert asked == BenchmarkConfig("procvqa-id")
    assert runner == RunnerConfig("m")


def test_copies_that_nothing_would_start_are_refused() -> None:
    with pytest.raises(UserError, match="4 copies of the model"):
        configs(EvaluationConfig.model_validate({"benchmark": "procvqa-id", "data_parallel": 4}).options(), "m")
