"""Labels: names of planned steps, and labels that have none."""

import pytest

from annotate.label import plain_label
from annotate.segments import IDLE, Segment

GRASP = Segment("Grasp it", 0, 5, step=0)
UNNAMED = Segment("Unnamed step 2", 5, 9, step=1, named=False)


@pytest.mark.parametrize(
    ("segments", "num_planned", "step_names", "plan", "named"),
    [
        ([GRASP], 1, (), ("Grasp it",), True),
        ([GRASP], 2, (), ("Grasp it", "Unnamed step 2"), False),
        ([GRASP], 2, ("Grasp it", "Place it"), ("Grasp it", "Place it"), True),
        ([GRASP, UNNAMED], 2, (), ("Grasp it", "Unnamed step 2"), False),
        ([Segment("Stand still", 0, 9, IDLE)], 1, (), ("Unnamed step 1",), False),
    ],
    ids=["attempted", "never attempted", "named by the task", "attempted without a name", "nothing was done"],
)
def test_planned_steps_are_named_by_the_task_or_their_first_attempts(
    segments: list[Segment], num_planned: int, step_names: tuple[str, ...], plan: tuple[str, ...], named: bool
):
    label = plain_label(segments, num_planned, "task", step_names=step_names)
    assert (label.plan, label.named) == (plan, named)
