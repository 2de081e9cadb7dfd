"""Which dimensions are grippers or hands, by their names as published sets have them."""

import pytest

from ingest.signals.naming import named_grippers, polarity_by_name

ARM = [f"joint_{k}" for k in range(6)]
HAND = ["thumb_0", "thumb_1", "index_finger", "middle_finger", "ring_finger", "pinky"]


def grippers(*names: str) -> list[tuple[str, str, tuple[int, ...]]]:
    return [(g.arm, g.kind, g.dimensions) for g in named_grippers(names)]


def test_hands() -> None:
    assert grippers(*ARM, *HAND) == [("", "hand", tuple(range(6, 12)))]
    both = [f"{side}_hand_{name}" for side in ("left", "right") for name in HAND]
    assert grippers(*both) == [("left", "hand", tuple(range(6))), ("right", "hand", tuple(range(6, 12)))]
    assert grippers(*(f"left_hand.{k}" for k in range(6))) == [("left", "hand", tuple(range(6)))]
    assert grippers("inspire_0", "inspire_1", "inspire_2") == [("", "hand", (0, 1, 2))]
    assert grippers(*HAND, "thumb_rotation") == [("", "hand", tuple(range(6)))]  # it goes sideways


def test_an_arm_has_its_gripper_before_its_hand() -> None:
    assert grippers("right_gripper", *(f"right_hand_{name}" for name in HAND)) == [("right", "gripper", (0,))]


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
