"""Transfers from task texts: what is to be carried where, and when a text asks for something else."""

import pytest

from annotate.motion.task_text import Transfer, transfers


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
