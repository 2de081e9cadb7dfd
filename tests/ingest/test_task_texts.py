"""Which task texts ask for other things."""

import pytest

from ingest.task_texts import are_other_tasks


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("Put the cup on the plate", "put the cup on the plate."),
        ("Grab the cup, set it on the plate", "Put the blue mug on the plate"),  # other words, one says more
        ("Picking up bananas", "pick up the bananna"),
        ("Stack the red cube onto the green cube", "Stack the green cube onto the red cube"),  # looks alike
        ("open the drawer", "close the drawer"),  # seen backwards
        ("把香蕉放在盘子上", "将香蕉放到盘子里"),
        ("pick and place", "put the cup on the plate"),  # says nothing
        ("put the cup away", None),
        ("", ""),
    ],
)
def test_the_same_in_other_words_is_not(one: str, other: str | None):
    assert not are_other_tasks(one, other)
    assert not are_other_tasks(other, one)
