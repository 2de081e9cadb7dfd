"""In whatever unit, from whatever zero, and either way round: a signal says the same of its gripper."""

from collections.abc import Sequence

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from ingest.episode import EpisodeData
from ingest.signals.gripper import GripperSignal, opening
from ingest.signals.polarity import WIDEST_M
from tests.kits.signal_kit import JOINTS, joints_and_openings, one_armed, only_surveyed

NUM = 3
NAMES = (*JOINTS, "gripper")
FINGERS = ("thumb_0", "index_finger_0", "middle_finger_0")
# Of the gripper's range; larger ones than any gripper measures in metres
scales = st.floats(1.5 * WIDEST_M, 5000)
offsets = st.floats(-20, 20)  # in ranges
signs = st.sampled_from([1, -1])


def curves(episodes: Sequence[EpisodeData], signal: GripperSignal) -> list[np.ndarray]:
    openings = [opening(signal, episode) for episode in episodes]
    return [curve for curve in openings if curve is not None]


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
