"""In whatever unit, from whatever zero, and either way round: a signal says the same of its gripper."""

from collections.abc import Callable, Sequence
from functools import cache

import numpy as np
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from ingest.episode import Episode
from ingest.signals.gripper import GripperSignal, opening
from ingest.signals.polarity import WIDEST_M
from tests.kits.signal_kit import JOINTS, episode_of, joints_and_openings, one_armed, only_surveyed

NUM = 3
NAMES = (*JOINTS, "gripper")
FINGERS = ("thumb_0", "index_finger_0", "middle_finger_0")
# Of the gripper's range; larger ones than any gripper measures in metres
scales = st.floats(1.5 * WIDEST_M, 5000)
offsets = st.floats(-20, 20)  # in ranges
signs = st.sampled_from([1, -1])


@cache
def survey_of(scale: float, offset: float) -> tuple[list[Episode], GripperSignal]:
    """Of runs whose gripper's value is scale * (opening + offset)."""
    episodes = one_armed(lambda o: scale * (o + offset), NAMES, NUM)
    return episodes, only_surveyed(episodes)


def curves(episodes: Sequence[Episode], signal: GripperSignal) -> list[np.ndarray]:
    openings = [opening(signal, episode) for episode in episodes]
    return [curve for curve in openings if curve is not None]


def moves_of(signal: GripperSignal) -> tuple:
    return signal.is_used, signal.closings_per_episode, signal.dimensions, signal.weights, signal.located_by


@settings(max_examples=40)
@given(scales, offsets, signs)
def test_scaling_shifting_and_inverting_change_nothing_but_the_ends(scale: float, offset: float, sign: int) -> None:
    plain, usual = survey_of(1.0, 0.0)
    episodes, signal = survey_of(sign * scale, offset)
    assert moves_of(signal) == moves_of(usual)
    assert (signal.polarity == usual.polarity) == (sign > 0)
    assert (signal.confidence, signal.polarity_by) == (usual.confidence, usual.polarity_by)
    for changed, curve in zip(curves(episodes, signal), curves(plain, usual), strict=True):
        np.testing.assert_allclose(changed, curve, atol=1e-9)
    np.testing.assert_allclose([signal.closed, signal.open], sign * scale * (offset + np.array([0, 1])), atol=1e-6)


@settings(max_examples=25)
@given(st.floats(1e-3, 0.09), signs)
def test_in_metres_from_zero_either_way(scale: float, sign: int) -> None:
    """A finger's way of some mm to 9 cm is open where it is far from 0."""
    plain, usual = survey_of(1.0, 0.0)
    episodes, signal = survey_of(sign * scale, 0.0)
    assert (signal.unit, moves_of(signal)) == ("m", moves_of(usual))
    assert signal.polarity == ("high_is_open" if sign > 0 else "high_is_closed")
    for changed, curve in zip(curves(episodes, signal), curves(plain, usual), strict=True):
        np.testing.assert_allclose(changed, curve, atol=1e-9)


@settings(max_examples=25)
@given(scales, offsets, signs)
def test_registered_ends_scale_with_the_signal(scale: float, offset: float, sign: int) -> None:
    def value(o: np.ndarray) -> np.ndarray:
        return sign * scale * (o + offset)

    closed, opened = (float(end) for end in value(np.array([0.1, 0.9])))
    assume(closed != opened)
    episodes = one_armed(value, NAMES, 1)
    signal = only_surveyed(episodes, gripper={"dimension": "gripper", "closed": closed, "open": opened})
    assert (signal.closed, signal.open, signal.confidence) == (closed, opened, 1.0)
    [(_, plain)] = joints_and_openings(1)
    np.testing.assert_allclose(opening(signal, episodes[0]), np.clip((plain - 0.1) / 0.8, 0, 1), atol=1e-9)  # pyright: ignore


@settings(max_examples=25)
@given(scales, offsets, signs, st.permutations(range(3)))
def test_the_joints_of_a_hand_in_any_order_and_sign(scale: float, offset: float, sign: int, order: list[int]) -> None:
    """All scaled alike: they are joints of one hand. Each may turn the other way."""

    def hand(o: np.ndarray) -> np.ndarray:
        joints = np.column_stack([o, 1 - o, 0.7 * o])
        return sign * scale * (joints[:, order] + offset)

    episodes = one_armed(hand, (*JOINTS, *FINGERS), NUM)
    signal = only_surveyed(episodes)
    assert (signal.kind, signal.has_polarity, signal.closings_per_episode) == ("hand", True, 1.0)
    for curve, (_, plain) in zip(curves(episodes, signal), joints_and_openings(NUM), strict=True):
        np.testing.assert_allclose(curve, plain, atol=1e-9)


@settings(max_examples=25)
@given(st.sampled_from([lambda v: 100 * v, lambda v: 40 - v, lambda v: -3 * v]), st.integers(0, 100))
def test_noise_is_no_grasp_in_any_unit(change: Callable[[np.ndarray], np.ndarray], seed: int) -> None:
    rng = np.random.default_rng(seed)
    episodes = [
        episode_of(k, np.column_stack([e.state[:, :6], change(2 + 0.02 * rng.normal(size=len(e.state)))]), NAMES)  # pyright: ignore
        for k, e in enumerate(one_armed(lambda o: o, NAMES, NUM))
    ]
    signal = only_surveyed(episodes)
    assert (signal.is_used, signal.closings_per_episode) == (False, None)
