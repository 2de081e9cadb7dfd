"""Spans of a source that cannot be segments."""

import pytest

from annotate.native import annotate
from ingest.episode import NativeStep


@pytest.mark.parametrize(
    "steps",
    [
        [NativeStep("a", 0, 10), NativeStep("b", 9, 20)],  # overlap
        [NativeStep("a", 10, 20), NativeStep("b", 0, 10)],  # backwards
        [NativeStep("a", 5, 5)],
        [NativeStep("a", 8, 5)],
        [NativeStep("a", -1, 5)],
        [NativeStep("a", 30, 40)],  # behind the last frame
    ],
)
def test_spans_that_cannot_be(steps: list[NativeStep]) -> None:
    with pytest.raises(ValueError, match=r"^step \d \('[ab]'\) covers frames"):
        annotate(steps, 30, None)
