"""Transfers from task texts: what is to be carried where, and when a text asks for something else."""

import pytest

from annotate.motion.task_text import Transfer, asks_for_other_deeds, transfers


@pytest.mark.parametrize(
    ("task", "plan"),
    [
        ("Stack the red cube onto the green cube.", [("the red cube", "onto the green cube")]),
        ("  Put the  cup\non the plate ", [("the cup", "on the plate")]),
        (
            "Put the can, the bread and the milk carton into their bins, in this order.",
            [("the can", "into its bin"), ("the bread", "into its bin"), ("the milk carton", "into its bin")],
        ),
        ("Pick up the red cylinder and move it to the blue marker.", [("the red cylinder", "to the blue marker")]),
        ("pick up the cup from the table, then place it on the shelf", [("the cup", "on the shelf")]),
        ("Put the pen in the cup, then put the cup on it", [("the pen", "in the cup"), ("the cup", "on it")]),
        ("take the tiger out of the red bowl and put it in the grey bowl", [("the tiger", "in the grey bowl")]),
        ("pick up the cup and take it to the sink", [("the cup", "to the sink")]),
        ("Raise the post to the red marker.", [("the post", "to the red marker")]),
        ("bring the bottle over to the box", [("the bottle", "over to the box")]),
        ("hand over the spoon to the person", [("the spoon", "to the person")]),
        ("Put the block into the hole, at the marker", [("the block", "into the hole, at the marker")]),
        ("Place the salt and pepper near the stove", [("the salt", "near the stove"), ("pepper", "near the stove")]),
    ],
)
def test_what_is_carried_where(task: str, plan: list[tuple[str, str]]):
    assert transfers(task) == tuple(Transfer(*one) for one in plan)


@pytest.mark.parametrize("task", ["Pick up the yellow bottle", "lift the yellow bottle on the table."])
def test_what_is_only_picked_up_is_lifted(task: str):
    assert transfers(task) == (Transfer("the yellow bottle", is_lifted=True),)


@pytest.mark.parametrize(
    "task",
    [
        None,
        "...",
        "Open the green drawer.",
        "open the top drawer and put the bowl inside",
        "pick up the cup and the fork and put them in the sink",
        "Put the cup on the plate and the fork in the sink",
        "place it on the shelf and wipe the table",
        "bimanual cloth manipulation",
    ],
)
def test_no_transfers_where_the_text_is_not_understood(task: str | None):
    assert transfers(task) == ()


@pytest.mark.parametrize(
    ("task", "others"),
    [
        ("Press  the red button from above.", True),
        ("open the drawer and close the door", True),
        ("open the drawer and put the bowl inside", False),
        ("Put the cup on the plate.", False),
        ("bimanual cloth manipulation", False),
        (None, False),
    ],
)
def test_deeds_that_no_gripper_shows(task: str | None, others: bool):
    assert asks_for_other_deeds(task) == others
