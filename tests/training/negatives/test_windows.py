"""Wrong instructions out of the corpus's own words."""

import numpy as np

from training.negatives.windows import Instructions

CUP, DRAWER = "Put the red cup away.", "Open the green drawer."


def test_where_nothing_differs_nothing_is_made_up():
    rng = np.random.default_rng(0)
    assert Instructions([CUP, CUP]).other(CUP, rng) is None
    assert Instructions([CUP, DRAWER]).other("", rng) is None
    assert Instructions([]).other(CUP, rng) is None
