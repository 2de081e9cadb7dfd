"""Two steps for a task of one action on one object ("Open the green drawer"): the arm reaches it, and then acts.

When does the action begin? Each run shows some candidates (`action_candidates`). The runs of a task are alike, so each
takes the candidate nearest to the task's median start time.

Example: three runs show candidates after 3.0 s, after 3.2 s, and after 1.0 and 3.1 s of arm motion. The last candidates
count for the median, which is 3.1 s. The third run takes 3.1 s. A fourth run without a candidate takes 3.1 s itself.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median_low

import numpy as np

from annotate.label import EpisodeLabel, plain_label
from annotate.motion.arm_events import speed_dips, turns
from annotate.motion.config import MotionConfig
from annotate.motion.gripper_events import closings, edge_frames
from annotate.motion.signals import MotionRun
from annotate.motion.stand_stills import at_rest, split_at_stand_stills
from annotate.segments import STEP, Segment

TURN_TO_CONTACT = 0.15  # an arm that has turned has yet to meet its object: this share of what remains of the run
NEAR_START = 0.25  # a candidate this near to the task's start time, as a share of that time, is the start

# Confidence: what showed the beginning of the action
BY_GRIPPER = 0.6
BY_TURN = 0.5
BY_OTHER_RUNS = 0.4
BY_NOTHING = 0.3


@dataclass(frozen=True)
class _ActionTimes:
    """When the runs of a task begin and end their action. Lists have one entry for each run."""

    starts: list[int | None]  # None where no run of the task shows it, or the run ended before
    ends: list[int]
    is_known: bool  # some run of the task shows a start


def action_candidates(run: MotionRun, config: MotionConfig) -> list[int]:
    """Frames at which the action may begin, in time.

    Those where the gripper has closed; else a little after the arm turns, or after the deepest dip of its speed where
    there is no state.
    """
    end, fps = _action_end(run), run.signals.fps

    # A gripper that closes as the action ends shows nothing of its beginning
    last = end - edge_frames(config, fps)
    closed = [event.moment for event in closings(run.gripper_events) if event.moment <= last]
    if closed:
        return closed

    # Without a state the speed alone has to show it; its deepest dip is the likeliest, the others may be chance
    if run.signals.state is not None:
        moments = turns(run.signals.state[:end], config, fps)
    else:
        moments = speed_dips(run.activity[:end], config, max(1, round(config.step_min_s * fps)))[:1]
    return [moment + round(TURN_TO_CONTACT * (end - moment)) for moment in moments]


def reach_and_act_labels(runs: Sequence[MotionRun], action: str, config: MotionConfig) -> list[EpisodeLabel]:
    """Label all runs of one task, whose text is `action`; one step where no run shows when the action begins."""
    times = _action_times(runs, config)
    return [
        _label(run, start, end, times, action) for run, start, end in zip(runs, times.starts, times.ends, strict=True)
    ]


def _action_times(runs: Sequence[MotionRun], config: MotionConfig) -> _ActionTimes:
    ends = [_action_end(run) for run in runs]
    clocks = [_moving_time_s(run) for run in runs]
    usual_s = _usual_start_s(runs, clocks)
    if usual_s is None:
        return _ActionTimes([None] * len(runs), ends, is_known=False)
    starts = [
        _action_start(run.action_candidates, clock, end, usual_s, config)
        for run, clock, end in zip(runs, clocks, ends, strict=True)
    ]
    return _ActionTimes(starts, ends, is_known=True)


def _action_end(run: MotionRun) -> int:
    """First frame after the action: where the arm comes to rest, or where a successful one has let go before."""
    end = run.final_rest
    kinds = [event.kind for event in run.gripper_events]
    if not run.failed and "close" in kinds and kinds[-1] == "open":
        end = min(end, run.gripper_events[-1].moment)
    return end or len(run)  # an arm that never moves is acting all the time


def _moving_time_s(run: MotionRun) -> np.ndarray:
    """Seconds that the arm has moved before each frame, float64 [n]."""
    moves = np.ones(len(run))
    for start, end in run.stand_stills:
        moves[start:end] = 0.0
    return np.r_[0.0, np.cumsum(moves)[:-1]] / run.signals.fps


def _usual_start_s(runs: Sequence[MotionRun], clocks: Sequence[np.ndarray]) -> float | None:
    """The task's median start time, in seconds of arm motion; None where no run shows one.

    Of each run the last candidate counts. Failed runs count only where no other run shows a candidate.
    """
    failed_starts, other_starts = [], []
    for run, clock in zip(runs, clocks, strict=True):
        if run.action_candidates:
            # The last candidate: an arm that turns on its way is still reaching
            starts = failed_starts if run.failed else other_starts
            starts.append(clock[run.action_candidates[-1]])
    counted = other_starts or failed_starts
    return median_low(counted) if counted else None


def _action_start(
    candidates: Sequence[int], clock: np.ndarray, end: int, usual_s: float, config: MotionConfig
) -> int | None:
    """The candidate nearest to the task's start time, or that time itself where no candidate is near it.

    None where the run ended before that time and has no candidate at all.
    """
    nearest = min(candidates, key=lambda frame: abs(clock[frame] - usual_s), default=None)
    tolerance_s = max(config.step_min_s, usual_s * NEAR_START)
    if nearest is not None and abs(clock[nearest] - usual_s) <= tolerance_s:
        return nearest
    # No candidate is near: the task's usual time is better evidence than this run's own odd candidate
    usual_frame = int(np.searchsorted(clock[:end], usual_s))
    return usual_frame if 0 < usual_frame < end else nearest


def _label(run: MotionRun, start: int | None, end: int, times: _ActionTimes, action: str) -> EpisodeLabel:
    completed = not run.failed
    confidence = _confidence(run, start)

    only_reached = _only_reached(run, start, times)
    if only_reached:
        segments = [Segment("Reach", 0, end, STEP, False, 0, confidence)]
    elif start is None:
        segments = [Segment(action, 0, end, STEP, completed, 0, confidence)]
    else:
        segments = [
            Segment("Reach", 0, start, STEP, True, 0, confidence),
            Segment(action, start, end, STEP, completed, 1, confidence),
        ]
    # What follows the action is rest or the way home; after a failure it is idle, not done
    if end < len(run):
        segments.append(at_rest(end, len(run), confidence, is_done=completed))

    parts = split_at_stand_stills(segments, run.stand_stills, run.signals.fps)
    # A failed run that only reached was to act, too: its second planned step was never attempted
    num_planned = 1 if start is None and not only_reached else 2
    return plain_label(parts, num_planned, run.signals.task)


def _confidence(run: MotionRun, start: int | None) -> float:
    if start is None:
        return BY_NOTHING
    if start not in run.action_candidates:
        return BY_OTHER_RUNS
    by_gripper = any(event.kind == "close" and event.moment == start for event in run.gripper_events)
    return BY_GRIPPER if by_gripper else BY_TURN


def _only_reached(run: MotionRun, start: int | None, times: _ActionTimes) -> bool:
    """Did a failed run end before it could act?

    It did where it shows no start, although other runs do, or where its reference run was still reaching at the frame
    that it came as far as.
    """
    if not run.failed or not times.is_known:
        return False
    if start is None:
        return True
    if run.match is None:
        return False
    reference_start = times.starts[run.match.run]
    return reference_start is not None and run.match.frame < reference_start
