"""The motion after a task: the arm draws back, and it rests. Neither is a step."""

import numpy as np

from annotate.motion.arm_events import turns
from annotate.motion.config import MotionConfig
from annotate.motion.signals import MotionRun
from annotate.motion.stand_stills import LEAST_STEP_S, at_rest, split_at_stand_stills
from annotate.segments import DONE, Segment

HOME = 0.35  # of how far the arm ever was from where it began: an arm that ends nearer has gone home
AWAY = 0.5  # and one that is farther has not set out for home yet


def way_home(run: MotionRun, start: int) -> list[Segment]:
    """Segments from frame `start`, at which the task is done, to the end of the run."""
    n, fps = len(run), run.signals.fps
    rest = max(start, run.final_rest)
    # A way of a few frames is none
    if rest - start < LEAST_STEP_S * fps:
        rest = start
    elif n - rest < LEAST_STEP_S * fps:
        rest = n
    segments = []
    if rest > start:
        withdraw = Segment("Withdraw", start, rest, DONE, True)
        segments += split_at_stand_stills([withdraw], run.stand_stills, fps)
    if rest < n:
        segments.append(at_rest(rest, n, is_done=True))
    return segments


def task_end(run: MotionRun, config: MotionConfig) -> int:
    """First frame after the task of a run: where the arm sets out for home, or where it comes to rest."""
    home = None if run.failed else sets_out_for_home(run, config)
    end = run.final_rest if home is None else min(home, run.final_rest)
    return end or len(run)  # an arm that never moves is at its task all the time


def ending(run: MotionRun, end: int) -> list[Segment]:
    """Segments from frame `end`, which the task ended with, to the end of the run; a failed run is not done."""
    if end == len(run):
        return []
    return [at_rest(end, len(run), is_done=False)] if run.failed else way_home(run, end)


def sets_out_for_home(run: MotionRun, config: MotionConfig) -> int | None:
    """The frame at which an arm turns for the last time to go back to where it began; None where it does not go there.

    Example: a finger presses a button and is drawn back: the frame at which it leaves the button.
    """
    state = run.signals.state
    if state is None:
        return None
    distances = np.linalg.norm(state - state[0], axis=1)
    farthest = float(distances.max())
    if distances[-1] > HOME * farthest:
        return None
    away = [
        frame for frame in turns(state[: run.final_rest], config, run.signals.fps) if distances[frame] > AWAY * farthest
    ]
    return away[-1] if away else None
