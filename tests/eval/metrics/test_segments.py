"""Metrics of segments and plans: worked examples, what the published ones reward, and pairs that must not match."""

import functools
from itertools import product

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from eval.metrics import segments
from eval.metrics import segments as m

WHOLE = [("x", 0, 60)]


def test_the_ends_alone_are_no_boundary() -> None:
    other_spans = [("a", 0, 30), ("b", 30, 60)]
    assert m.boundary_f1(WHOLE, other_spans) == 0


@given(st.text("ab", max_size=6), st.text("abc", max_size=6))
def test_edits_are_counted_as_by_their_definition(found: str, target: str) -> None:
    @functools.cache
    def least(a: str, b: str) -> int:
        if not (a and b):
            return len(a + b)
        return min(least(a[1:], b) + 1, least(a, b[1:]) + 1, least(a[1:], b[1:]) + (a[0] != b[0]))

    name_spans = [list(product(names, [0], [1])) for names in (found, target)]
    assert m.edit_score(*name_spans) == 1 - least(found, target) / max(1, len(found), len(target))


def test_a_steps_name_is_plain_without_articles() -> None:
    assert m.plain_name("Put the cup on a Plate!") == "put cup on plate"


# Plans


def vectors(*names: str) -> dict[str, np.ndarray]:
    return dict(zip(names, np.eye(len(names)), strict=True))


@pytest.mark.parametrize(
    ("text", "plan"),
    [
        (
            "Remaining actions:\n1. Grasp the cup\n2. Place it\n<progress>40.00%</progress>",
            ("Grasp the cup", "Place it"),
        ),
        ("Grasp the cup", ("Grasp the cup",)),
        ("No action remains. All of the task is done: 1. Grasp.", ()),
        ("No more actions remain.", ()),
        ("", None),
        ("<progress>100%</progress>", None),
        ("- Grasp\n- Place", ("Grasp", "Place")),
    ],
)
def test_plans_are_read(text: str, plan: tuple[str, ...] | None) -> None:
    assert segments.plan_of(text) == plan


def test_plan_success_wants_order_and_number_and_semantic_f1_does_not() -> None:
    v = vectors("a", "b", "c")
    assert segments.plan_success(["a", "b"], ["a", "b"], v) == 1
    assert (
        segments.plan_success(["b", "a"], ["a", "b"], v)
        == segments.plan_success(["a"], ["a", "b"], v)
        == 0
    )
    assert segments.plan_success([], [], v) == 1
    assert segments.semantic_f1(["b", "a"], ["a", "b"], v) == 1
    assert segments.semantic_f1(["a", "c"], ["a", "b"], v) == 0.5
    assert segments.semantic_f1([], [], v) == 1
    assert segments.semantic_f1([], ["a"], v) == 0
    close = {"a": np.array([1.0, 0]), "A": np.array([0.9, np.sqrt(1 - 0.81)])}
    assert segments.plan_success(["A"], ["a"], close) == 1
