"""Settings of `eval`: --set KEY=VALUE, checked by the model that has them."""

import pytest

from core.errors import UserError
from core.settings import read_settings, setting_values
from eval.benchmarks.options import EvaluationOptions


def test_settings_are_read_as_their_fields_are() -> None:
    texts = ["top-p=0.5", "seed=7", "think=no", "price=2.5,10"]
    options = read_settings(EvaluationOptions, "eval", {"limit": 3} | setting_values(texts))
    assert options.limit == 3
    assert (options.top_p, options.seed, options.think, options.prices) == (
        0.5,
        7,
        False,
        (2.5, 10),
    )


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("sede=1", "eval has no setting 'sede'; did you mean seed\\?; it has: model, "),
        ("seed", "--set seed: a setting is KEY=VALUE"),
        ("seed=-1", "seed: input should be greater than or equal to 0"),
        ("price=2", "price 2: give two numbers"),
    ],
)
def test_a_wrong_setting_is_named_with_those_that_there_are(text: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        read_settings(EvaluationOptions, "eval", setting_values([text]))
