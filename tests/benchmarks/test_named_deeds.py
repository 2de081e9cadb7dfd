"""Which named steps did not happen, by what a person saw."""

import numpy as np

from annotate.motion.observe import Signals
from benchmarks.label_truth import Known
from benchmarks.named_deeds import deeds
from core.domain.label import IDLE, STEP, Segment

PERSON = (
    Segment("reach for the cup", 0, 20, step=0),
    Segment("close the gripper on the cup", 20, 30, completed=False, step=1),
    Segment("hold still", 30, 40, IDLE, False),
    Segment("lift the cup and carry it", 40, 80, step=2),
    Segment("let go of the cup", 80, 90, step=3),
    Segment("close the gripper", 90, 100, step=4),
)


def judged(*labelled: Segment) -> list[tuple[str, bool, bool]]:
    signals = Signals(10.0, np.zeros(100), None, task="put the cup on the plate")
    known_run = Known(signals, None, np.zeros(100), (), PERSON, float("nan"))
    return [(deed.step.name, deed.happened, deed.is_timed) for deed in deeds(known_run, labelled)]


def test_a_deed_happened_where_a_person_says_so():
    assert judged(
        Segment("Reach for the cup", 0, 22, STEP, True, 0),
        Segment("Grasp the cup", 22, 40, STEP, True, 1),  # the person's failed
        Segment("Grasp the cup", 22, 30, STEP, False, 1),
        Segment("Grasp the cup", 90, 100, STEP, False, 1),  # a fist, and too late for the attempt
        Segment("Carry the cup", 96, 100, STEP, True, 2),  # it did happen, but before
        Segment("Place the cup on the plate", 80, 90, STEP, True, 3),
    ) == [
        ("Reach for the cup", True, True),
        ("Grasp the cup", False, False),
        ("Grasp the cup", True, True),
        ("Grasp the cup", False, False),
        ("Carry the cup", True, False),
        ("Place the cup on the plate", False, False),
    ]


def test_the_task_s_text_and_unnamed_steps_claim_no_deed():
    text = Segment("put the cup on the plate", 0, 50, STEP, True, 0)
    unnamed = Segment("Unnamed step 2", 50, 100, STEP, True, 1, named=False)
    assert judged(text, unnamed) == []
