import numpy as np

from annotate.motion import MotionConfig, Signals
from annotate.motion.attempt_outcomes import DROPPED, MISSED, PLACED, outcomes
from annotate.motion.attempts import attempts
from annotate.motion.signals import MotionRun, observe
from annotate.motion.task_text import Transfer
from tests.kits.motion_runs import FPS, curves, gripping

CUP = Transfer("the cup", "on the plate")


def observed(gripper: np.ndarray, speeds: np.ndarray, state: np.ndarray | None = None) -> MotionRun:
    signals = Signals(FPS, np.zeros(len(speeds)), speeds, curves(gripper), None, "Put the cup on the plate.", state)
    return observe(signals, MotionConfig())


def test_the_attempts_that_carried_the_least_far_have_failed():
    gripper = gripping(150, (14, "close"), (21, "open"), (44, "close"), (102, "open"))
    tries = attempts(observed(gripper, np.ones(150)))
    assert [(t.closed, t.opens, t.carried) for t in tries] == [(14, 19, 5), (44, 100, 56)]
    assert outcomes(tries, [CUP], None, None) == [MISSED, PLACED]
    assert outcomes(tries, [CUP, CUP], True, None) == [PLACED, PLACED]
    assert outcomes(tries, [CUP], False, None) == [MISSED, DROPPED]


def test_what_is_grasped_again_where_it_was_had_not_left():
    """The gripper shows nothing of what it holds; the arm lifts, opens, and comes back to where it had closed."""
    gripper = gripping(200, (20, "close"), (50, "open"), (80, "close"), (150, "open"))
    place = np.r_[np.zeros(20), np.linspace(0, 1, 30), np.linspace(1, 0, 30), np.zeros(5), np.linspace(0, 3, 115)]
    back = attempts(observed(gripper, np.ones(200), place[:, None]))
    assert outcomes(back, [CUP], None, place[:, None]) == [MISSED, PLACED]
    onward = np.arange(200.0)[:, None]
    assert outcomes(back, [CUP], None, onward) == [DROPPED, PLACED]
