"""Wrong instructions out of the corpus's own words."""

import numpy as np
import pytest

from training.negatives.texts import Instructions, first_thing

CUP, DRAWER, BOWL = "Put the red cup away.", "Open the green drawer.", "put the blue bowl away"


@pytest.mark.parametrize(
    ("text", "thing"),
    [
        ("Pick up the red cylinder and move it to the blue marker.", "red cylinder"),
        ("Put the can, the bread and the milk carton into their bins", "can"),
        ("Stack a light-blue cube onto the tower", "light-blue cube"),
        ("Slide the window open by its handle.", "window open"),
        ("put carrot on plate", None),
        ("", None),
    ],
)
def test_what_an_instruction_names_first(text: str, thing: str | None):
    assert first_thing(text) == thing


def test_where_nothing_differs_nothing_is_made_up():
    rng = np.random.default_rng(0)
    assert Instructions([CUP, CUP]).other("other_task", CUP, rng) is None
    assert Instructions([CUP, DRAWER]).other("shuffled", "", rng) is None
    assert Instructions([]).wrong("wrong_object", CUP, rng) is None
