"""Which dimensions an earlier version may have taken for the gripper."""

import pytest

from annotate.content_hash import _former_grippers


@pytest.mark.parametrize(
    ("names", "grippers_now", "width", "choices"),
    [
        (["arm_0", "gripper_0", "gripper_1"], [], 3, {(1, 2), (1,), (2,)}),
        (
            ["left_arm", "left_gripper", "right_arm", "right_gripper"],
            [(1,), (3,)],
            4,
            {(1, 3), (1,), (3,)},
        ),
        ([], [(2, 3)], 5, {(2, 3), (2,), (4,)}),
        (["gripper"], [(7,)], 1, {(0,)}),  # what lies beyond the vector is none of its dimensions
    ],
)
def test_former_grippers(names: list[str], grippers_now: list, width: int, choices: set):
    assert _former_grippers(names, grippers_now, width) == choices
