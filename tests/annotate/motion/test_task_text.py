"""Plans from task texts: what is to be carried where, and when a text is none of that."""

import pytest

from annotate.motion.task_text import (
    COARSE,
    FINE,
    WITH_REACH,
    Transfer,
    lifted_object,
    plan_of,
    single_action,
    transfers,
    unnamed_transfers,
)


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
    assert [(t.object_name, t.destination, t.held_by) for t in transfers(task)] == [(*m, None) for m in plan]


def test_what_is_put_somewhere_is_let_go_and_what_is_moved_there_need_not_be():
    assert [t.let_go for t in transfers("Put the cup on the plate.")] == [True]
    for task in (
        "Pick up the cup and move it to the plate.",
        "take the cup to the sink",
        "Bring the cup to the plate.",
    ):
        assert [t.let_go for t in transfers(task)] == [False]


@pytest.mark.parametrize("task", ["Pick up the yellow bottle", "lift the box."])
def test_what_is_only_picked_up_stays_held(task: str):
    plan = plan_of(task)
    assert [(t.destination, t.held_by) for t in plan.transfers] == [(None, "Lift")]
    assert plan.action
    for other in ("Pick up the cup and the fork", "Put the cup on the plate", "Open the drawer", None):
        assert lifted_object(other) is None


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


def test_the_steps_of_a_transfer():
    can = Transfer("the can", "into its bin")
    assert list(can.steps(COARSE).values()) == ["Grasp the can", "Place the can into its bin"]
    assert list(can.steps(WITH_REACH).values()) == ["Reach for the can", *can.steps(COARSE).values()]
    assert list(can.steps(FINE).items()) == [
        ("reach", "Reach for the can"),
        ("grasp", "Grasp the can"),
        ("carry", "Carry the can"),
        ("place", "Place the can into its bin"),
        ("release", "Release the can"),
    ]
    assert list(Transfer("the pen", held_by="Lift").steps(FINE)) == ["reach", "grasp", "place"]
    first, second = unnamed_transfers(2, last_stays_held=True)
    assert list(first.steps(COARSE).values()) == ["Grasp object 1", "Carry and release object 1"]
    assert list(second.steps(COARSE).values()) == ["Grasp object 2", "Carry object 2"]


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
