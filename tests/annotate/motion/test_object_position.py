"""Where a first picture says the arm should go: exact on a made-up table, and silent where pictures tell nothing."""

from dataclasses import replace

import numpy as np
import pytest

from annotate.motion.object_position import (
    MIN_EXAMPLES,
    NEGLIGIBLE,
    PositionExample,
    distances_to_object,
    learn_positions,
)

PIXELS, N = 40, 30
START = np.array([0.0, 0.0])


def picture(place: np.ndarray) -> np.ndarray:
    """A table on which a thing shows where it lies, linear in its place."""
    ramp = np.linspace(0, 1, PIXELS)
    return 0.3 + 0.2 * place[0] * ramp + 0.2 * place[1] * (1 - ramp)


def run(place: tuple[float, float], target: tuple[float, float] | None = None) -> PositionExample:
    """To the thing, or to another place, and up from there: [N, 2]."""
    goal = np.array(target or place)
    reach = START + np.linspace(0, 1, 20)[:, None] * (goal - START)
    act = goal + np.linspace(0, 1, N - 20)[:, None] * np.array([0.0, 0.5])
    return PositionExample(picture(np.array(place)), np.r_[reach, act], 19)


PLACES = ((1.0, 1.0), (1.2, 0.8), (0.8, 1.2), (1.1, 1.1), (0.9, 0.9), (1.2, 1.2), (0.8, 0.8))
SUCCESSFUL = [run(p) for p in PLACES]


def test_a_run_is_near_if_it_came_to_its_object():
    known = learn_positions(SUCCESSFUL)
    assert known is not None
    good, missed = run((1.05, 0.95)), run((1.05, 0.95), target=(1.9, 0.1))
    assert distances_to_object(good.picture, good.state, known).min() < known.margin
    away = distances_to_object(missed.picture, missed.state, known)
    assert away.shape == (N,)
    assert away.min() > known.margin


def test_the_place_of_one_thing_is_wrong_for_another():
    """It went where the thing of another successful run lay: only its own picture tells."""
    known = learn_positions(SUCCESSFUL)
    assert known is not None
    other = run((0.8, 1.2), target=(1.2, 0.8))
    assert distances_to_object(other.picture, other.state, known).min() > known.margin


def test_pictures_that_tell_nothing_of_the_place_convict_nobody():
    rng = np.random.default_rng(0)
    blind = [replace(r, picture=rng.random(PIXELS)) for r in SUCCESSFUL]
    known, told = learn_positions(blind), learn_positions(SUCCESSFUL)
    assert known is not None
    assert told is not None
    assert known.margin > 2 * told.margin


def test_alike_runs_allow_a_little():
    known = learn_positions([run((1.0, 1.0))] * MIN_EXAMPLES)
    assert known is not None
    assert known.margin == NEGLIGIBLE


@pytest.mark.parametrize(
    "runs",
    [
        [],
        SUCCESSFUL[: MIN_EXAMPLES - 1],
        [replace(r, state=np.zeros((N, 2))) for r in SUCCESSFUL],
        [SUCCESSFUL[0], *(replace(r, picture=r.picture[1:]) for r in SUCCESSFUL[1:])],
    ],
)
def test_too_little_to_learn_from(runs: list[PositionExample]):
    assert learn_positions(runs) is None
