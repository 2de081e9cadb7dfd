"""Settings of `eval`: --set KEY=VALUE, checked by the model that has them."""

import pytest

from cli.options import settings_of
from core.errors import UserError
from eval.benchmarks.options import EvaluationOptions


def test_settings_are_read_as_their_fields_are() -> None:
    given = EvaluationOptions(benchmark="dataset", limit=3)
    options = settings_of(given, ["top-p=0.5", "seed=7", "think=no", "price=2.5,10"])
    assert (options.benchmark, options.limit) == ("dataset", 3)
    assert (options.top_p, options.seed, options.think, options.prices) == (
        0.5,
        7,
        False,
        (2.5, 10),
    )


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("sede=1", "--set sede=1: give KEY=VALUE with one of num_inferences, .*did you mean seed"),
        ("limit=1", "--set limit=1: give KEY=VALUE"),  # an option of its own
        ("seed", "--set seed: give KEY=VALUE"),
        ("seed=-1", "seed: input should be greater than or equal to 0"),
        ("price=2", "price 2: give two numbers"),
    ],
)
def test_a_wrong_setting_is_named_with_those_that_there_are(text: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        settings_of(EvaluationOptions(), [text])
