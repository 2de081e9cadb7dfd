"""Plans from task texts: what is to be carried where, and when a text is none of that."""

import pytest

from annotate.motion.task_text import Transfer, single_action, transfers


@pytest.mark.parametrize(
    ("task", "plan"),
    [
        ("Stack the red cube onto the green cube.", [("the red cube", "onto the green cube")]),
        ("put carrot in pot", [("carrot", "in pot")]),
        ("  Put the  cup\non the plate ", [("the cup", "on the plate")]),
        (
            "Put the can, the bread and the milk carton into their bins, in this order.",
            [("the can", "into its bin"), ("the bread", "into its bin"), ("the milk carton", "into its bin")],
        ),
        ("Pick up the red cylinder and move it to the blue marker.", [("the red cylinder", "to the blue marker")]),
        ("pick up the cup from the table, then place it on the shelf", [("the cup", "on the shelf")]),
        ("Put the pen in the cup, then put the cup on it", [("the pen", "in the cup"), ("the cup", "on it")]),
        # a thing taken somewhere, as real datasets have it
        ("take the cup to the counter", [("the cup", "to the counter")]),
        ("take the tiger out of the red bowl and put it in the grey bowl", [("the tiger", "in the grey bowl")]),
        ("take the cup off the shelf and put it back on the plate", [("the cup", "on the plate")]),
        ("pick up the cup and take it to the sink", [("the cup", "to the sink")]),
        ("Raise the post to the red marker.", [("the post", "to the red marker")]),
        ("Pick up the block and bring it back to the marker.", [("the block", "to the marker")]),
        ("bring the bottle over to the box", [("the bottle", "over to the box")]),
        ("return the book to the shelf", [("the book", "to the shelf")]),
        ("hand over the spoon to the person", [("the spoon", "to the person")]),
        ("pick the salt from the counter and place it in the plate", [("the salt", "in the plate")]),
        ("Put the block into the hole, at the marker", [("the block", "into the hole, at the marker")]),
        ("Place the salt and pepper near the stove", [("the salt", "near the stove"), ("pepper", "near the stove")]),
    ],
)  # fmt: skip
def test_what_is_carried_where(task: str, plan: list[tuple[str, str]]):
    assert transfers(task) == tuple(Transfer(*m) for m in plan)


@pytest.mark.parametrize(
    "task",
    [
        None,
        "",
        "...",
        "Open the green drawer.",
        "Slide the black plate into the goal.",
        "open the top drawer and put the bowl inside",
        "Pick up the cup.",
        "pick up the cup and the fork and put them in the sink",
        "Put the cup on the plate and the fork in the sink",
        "place it on the shelf and wipe the table",
        "put away",
    ],
)
def test_no_plan_where_it_asks_for_something_else(task: str | None):
    assert transfers(task) == ()


def test_a_transfer_is_two_or_three_steps():
    transfer = Transfer("the can", "into its bin")
    assert transfer.steps(with_reach=False) == ["Grasp the can", "Place the can into its bin"]
    assert transfer.steps(with_reach=True)[0] == "Reach for the can"
    assert transfer.steps(with_reach=True)[1:] == transfer.steps(with_reach=False)


@pytest.mark.parametrize(
    ("task", "expected"),
    [
        ("Open the green drawer.", "Open the green drawer"),
        ("Press  the red button from above.", "Press the red button from above"),
        ("Slide the black plate into the goal.", "Slide the black plate into the goal"),
        ("pick up the cup", "pick up the cup"),
        ("Raise the arm of the lamp", "Raise the arm of the lamp"),
        ("retrieve the cup from the shelf", "retrieve the cup from the shelf"),
        ("grasp the handle to open the door", "grasp the handle to open the door"),
        ("Put the cup on the plate.", None),  # is carried
        ("open the drawer and the door", None),
        ("open the drawer and close the door", None),
        ("pick up the cup and put it on the shelf", None),
        ("be useful", None),
        ("", None),
        (None, None),
    ],
)
def test_one_thing_to_be_done(task: str | None, expected: str | None):
    assert single_action(task) == expected
    assert expected is None or transfers(task) == ()
