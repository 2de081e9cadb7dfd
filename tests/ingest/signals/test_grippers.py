"""Grippers and hands: by names as published sets have them, by their data's shape; which end is open, and how far."""

from itertools import product

import numpy as np
import pytest

from ingest.signals.gripper import GripperRun, observed_evidence, opening, polarity_of
from ingest.signals.naming import named_grippers, polarity_by_name, switching_dimensions
from tests.kits.signal_kit import FPS, episode_of, joints_and_openings, signal_at

ARM = [f"joint_{k}" for k in range(6)]
HAND = ["thumb_0", "thumb_1", "index_finger", "middle_finger", "ring_finger", "pinky"]


def grippers(*names: str) -> list[tuple[str, str, tuple[int, ...]]]:
    return [(g.arm, g.kind, g.dimensions) for g in named_grippers(names)]


def test_hands() -> None:
    assert grippers(*ARM, *HAND) == [("", "hand", tuple(range(6, 12)))]
    both = [f"{side}_hand_{name}" for side, name in product(("left", "right"), HAND)]
    assert grippers(*both) == [
        ("left", "hand", tuple(range(6))),
        ("right", "hand", tuple(range(6, 12))),
    ]
    assert grippers(*(f"left_hand.{k}" for k in range(6))) == [("left", "hand", tuple(range(6)))]
    assert grippers("inspire_0", "inspire_1", "inspire_2") == [("", "hand", (0, 1, 2))]
    assert grippers(*HAND, "thumb_rotation") == [("", "hand", tuple(range(6)))]  # it goes sideways


def test_an_arm_has_its_gripper_before_its_hand() -> None:
    assert grippers("right_gripper", *(f"right_hand_{name}" for name in HAND)) == [
        ("right", "gripper", (0,))
    ]


@pytest.mark.parametrize(
    ("name", "polarity"),
    [
        ("gripper_width", ("high_is_open", "width")),
        ("open_gripper", ("high_is_open", "open")),
        ("gripper_closed", ("high_is_closed", "closed")),
        ("is_grasp", ("high_is_closed", "grasp")),
        ("gripper_close_open", None),
        ("gripper", None),
    ],
)
def test_what_names_say_of_the_ends(name: str, polarity: tuple[str, str] | None) -> None:
    assert polarity_by_name(["other", name]) == polarity


RATE = 10.0
WAY = np.linspace(0, 1, 100)


def run(
    *parts: tuple[int, float], way: np.ndarray | None = WAY, push: np.ndarray | None = None
) -> GripperRun:
    """So many frames at each level."""
    return GripperRun(
        np.concatenate([np.full(count, level) for count, level in parts]), way, push, RATE
    )


def shown(*runs: GripperRun) -> tuple[str, float]:
    finding = polarity_of(observed_evidence(runs))
    return finding.polarity, round(finding.confidence, 2)


# What episodes show


def test_a_command_beyond_what_is_reached() -> None:
    levels = ((20, 1.0), (20, 0.2), (20, 1.0), (20, 0.2), (20, 1.0))
    low = run(*levels).relative < 0.5
    squeezes = run(*levels, push=np.where(low, -0.2, 0.0))
    assert shown(squeezes) == ("high_is_open", 0.88)
    opens_wide = run(*levels, push=np.where(low, 0.0, 0.2))
    assert shown(opens_wide) == ("high_is_closed", 0.88)
    assert shown(run(*levels, push=np.zeros(100))) == ("unknown", 0.5)
    beyond_both_ends = run(*levels, push=np.where(low, -0.2, 0.2))
    assert shown(beyond_both_ends) == ("unknown", 0.5)


def test_a_gripper_that_does_not_move_shows_nothing() -> None:
    assert observed_evidence([run((100, 0.5), push=np.full(100, 0.5))]) == []


ARMS = joints_and_openings()
RATES = [FPS] * len(ARMS)


def with_gripper(place: int) -> list[np.ndarray]:
    """The arm's joints, and among them the gripper at some place."""
    return [np.insert(joints, place, opening, axis=1) for joints, opening in ARMS]


def test_two_arms_one_behind_the_other() -> None:
    rows = [np.hstack([run, run]) for run in with_gripper(6)]
    assert switching_dimensions(rows, RATES, ()) == {"left": 6, "right": 13}
    names = [f"{arm}_{k}" for k, arm in product(range(7), ("robot1", "robot2"))]
    alternating = [np.repeat(run, 2, axis=1) for run in with_gripper(6)]
    assert switching_dimensions(alternating, RATES, names) == {"robot1": 12, "robot2": 13}
    # Without names one half is one arm
    assert switching_dimensions(alternating, RATES, ()) == {"right": 13}


ROWS = np.array([[0.0, 10.0, 0.5, 1.0], [1.0, 20.0, 0.25, 3.0]])
EPISODE = episode_of(0, ROWS, action=-ROWS)


def opened(*values: float, closed: float, open: float) -> list[float]:
    state = np.array(values)[:, None]
    curve = opening(signal_at(0, closed=closed, open=open), episode_of(0, state))
    assert curve is not None
    return curve.tolist()


def test_an_opening_is_the_share_of_the_range() -> None:
    assert opened(0.0, 0.01, 0.04, closed=0, open=0.04) == [0.0, 0.25, 1.0]
    assert opened(0.0, 0.25, 1.0, closed=1, open=0) == [1.0, 0.75, 0.0]
    assert opened(-1.0, 0.0, 1.0, closed=-1, open=1) == [0.0, 0.5, 1.0]
    assert opened(-5.0, 120.0, closed=0, open=100) == [0.0, 1.0]  # beyond the ends
    assert opened(3.0, 4.0, closed=3, open=3) == [0.0, 0.0]


def test_an_episode_that_has_not_the_dimensions() -> None:
    assert opening(signal_at(4), EPISODE) is None
    assert opening(signal_at(0, column="action"), episode_of(0, ROWS)) is None
    assert opening(signal_at(0), episode_of(0, ROWS[:0])) is None
