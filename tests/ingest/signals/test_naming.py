"""Which dimensions are grippers or hands, by their names as published sets have them."""

from typing import Any

import pytest

from ingest.signals.naming import arm_of, named_grippers, names_by_parts, polarity_by_name, words

ARM = [f"joint_{k}" for k in range(6)]
HAND = ["thumb_0", "thumb_1", "index_finger", "middle_finger", "ring_finger", "pinky"]


def grippers(*names: str) -> list[tuple[str, str, tuple[int, ...]]]:
    return [(g.arm, g.kind, g.dimensions) for g in named_grippers(names)]


@pytest.mark.parametrize(
    ("name", "parts"),
    [
        ("kLeftHandThumb0", ["k", "left", "hand", "thumb", "0"]),
        ("gripper.pos", ["gripper", "pos"]),
        ("EEFGripperWidth", ["eef", "gripper", "width"]),
        ("arm2_j6", ["arm", "2", "j", "6"]),
        ("", []),
    ],
)
def test_words(name: str, parts: list[str]) -> None:
    assert words(name) == parts


@pytest.mark.parametrize(
    "name",
    [
        "gripper", "gripper.pos", "main_gripper", "Jaw", "claw", "end_effector_position", "robotiq_85_knuckle",
        "panda_finger_joint1", "gripper_width", "actions/grasp", "is_gripper_closed",
    ],
)  # fmt: skip
def test_one_gripper(name: str) -> None:
    assert grippers(*ARM, name) == [("", "gripper", (6,))]


@pytest.mark.parametrize(
    "name",
    [
        "x", "j6", "wrist_roll.pos", "gripper_x", "gripper_velocity", "gripper_force", "hand_qw",
        "end_effector_rotation", "hand_camera", "index", "middle", "base_yaw", "",
    ],
)  # fmt: skip
def test_other_things(name: str) -> None:
    """A pose or a force of a gripper is not how far it is open; an index may be of anything."""
    assert grippers(*ARM, name) == []


def test_two_arms_are_two_grippers() -> None:
    names = [*(f"left_{name}" for name in ARM), "left_gripper", *(f"right_{name}" for name in ARM), "right_gripper"]
    assert grippers(*names) == [("left", "gripper", (6,)), ("right", "gripper", (13,))]
    assert grippers("l_gripper", "r_gripper") == [("left", "gripper", (0,)), ("right", "gripper", (1,))]
    assert grippers("arm1_j6", "arm1_gripper", "arm2_gripper") == [("arm1", "gripper", (1,)), ("arm2", "gripper", (2,))]


def test_two_fingers_of_one_arm_are_one_gripper() -> None:
    assert grippers(*ARM, "finger_joint1", "finger_joint2") == [("", "gripper", (6, 7))]
    assert grippers(*ARM, "left_finger", "right_finger") == [("", "gripper", (6, 7))]
    # Fingers of two arms, whose joints have sides, too
    assert grippers("left_joint", "left_finger", "right_joint", "right_finger") == [
        ("left", "gripper", (1,)),
        ("right", "gripper", (3,)),
    ]
    # As many dimensions as two arms have
    assert len(grippers(*ARM, *ARM, "left_finger", "right_finger")) == 2
    both = [f"{arm}/{side}_finger" for arm in ("left", "right") for side in ("left", "right")]
    assert grippers(*ARM, *ARM, *both) == [("left", "gripper", (12, 13)), ("right", "gripper", (14, 15))]


def test_hands() -> None:
    assert grippers(*ARM, *HAND) == [("", "hand", tuple(range(6, 12)))]
    both = [f"{side}_hand_{name}" for side in ("left", "right") for name in HAND]
    assert grippers(*both) == [("left", "hand", tuple(range(6))), ("right", "hand", tuple(range(6, 12)))]
    assert grippers(*(f"left_hand.{k}" for k in range(6))) == [("left", "hand", tuple(range(6)))]
    assert grippers("inspire_0", "inspire_1", "inspire_2") == [("", "hand", (0, 1, 2))]
    assert grippers(*HAND, "thumb_rotation") == [("", "hand", tuple(range(6)))]  # it goes sideways


def test_a_hand_of_two_joints_works_as_a_gripper_does() -> None:
    assert grippers(*ARM, "hand_0", "hand_1") == [("", "gripper", (6, 7))]


def test_an_arm_has_its_gripper_before_its_hand() -> None:
    assert grippers("right_gripper", *(f"right_hand_{name}" for name in HAND)) == [("right", "gripper", (0,))]


@pytest.mark.parametrize(
    ("name", "arm"),
    [
        ("left_gripper", "left"),
        ("gripper_R", "right"),
        ("arm2_j6", "arm2"),
        ("follower1_gripper", "follower1"),
        ("arm_6", ""),  # the number counts joints
        ("gripper.pos", ""),
        ("collar", ""),
    ],
)
def test_arms(name: str, arm: str) -> None:
    assert arm_of(name) == arm


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


@pytest.mark.parametrize(
    ("parts", "names"),
    [
        ({"left_hand": {"start": 1, "end": 3}}, ["", "left_hand.0", "left_hand.1", ""]),
        ({"a": {"start": 0, "end": 5}}, [""] * 4),  # beyond the vector
        ({"a": {"start": 2, "end": 2}, "b": {"start": -1, "end": 2}, "c": {"start": False, "end": True}}, [""] * 4),
        ({"a": {"start": 0}, "b": [0, 2], "c": {"start": 0.0, "end": 2.0}}, [""] * 4),
    ],
)
def test_names_of_parts(parts: dict[str, Any], names: list[str]) -> None:
    assert names_by_parts(parts, 4) == names
