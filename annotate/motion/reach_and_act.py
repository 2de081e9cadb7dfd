"""Two steps for a task of one action on one object ("Open the green drawer"): the arm reaches it, and then acts.

When does the action begin? Each run shows some candidates (`action_candidates`). The runs of a task are alike, so each
takes the candidate nearest to the task's median start time.

Example: three runs show candidates after 3.0 s, after 3.2 s, and after 1.0 and 3.1 s of arm motion. The last candidates
count for the median, which is 3.1 s. The third run takes 3.1 s. A fourth run without a candidate, whose arm has no
state to compare, is one step.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median, median_low

import numpy as np

from annotate.label import EpisodeLabel, plain_label
from annotate.motion.arm_events import speed_dips, turns
from annotate.motion.config import MotionConfig
from annotate.motion.gripper_events import closings, edge_frames
from annotate.motion.signals import MIN_RUNS, MotionRun
from annotate.motion.stand_stills import split_at_stand_stills
from annotate.motion.unplanned import one_step_label
from annotate.motion.way_home import ending, task_end
from annotate.segments import STEP, Segment

TURN_TO_CONTACT = 0.15  # an arm that has turned has yet to meet its object: this share of what remains of the run
NEAR_START = 0.25  # a candidate this near to the task's start time, as a share of that time, is the start

ALIKE = 0.25  # of a distance: runs whose distances differ less, by the median, agree


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
    end, fps = _action_end(run, config), run.signals.fps

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
        _label(run, start, end, times, action, config)
        for run, start, end in zip(runs, times.starts, times.ends, strict=True)
    ]


def _action_times(runs: Sequence[MotionRun], config: MotionConfig) -> _ActionTimes:
    ends = [_action_end(run, config) for run in runs]
    clocks = [_moving_time_s(run) for run in runs]
    usual_s = _usual_start_s(runs, clocks)
    if usual_s is None:
        return _ActionTimes([None] * len(runs), ends, is_known=False)
    shown = [
        _shown_start(run.action_candidates, clock, usual_s, config) for run, clock in zip(runs, clocks, strict=True)
    ]

    # A run that shows none may be laid beside those that do: how near was their arm to its end, or to this place?
    nearness = _usual_nearness(runs, ends)
    starts = []
    for run, start, end in zip(runs, shown, ends, strict=True):
        if start is None and run.failed:
            start = _start_as_in_reference(run, runs, shown)
        elif start is None and nearness is not None:
            start = _start_by_nearness(run, end, nearness)
        starts.append(start)
    return _ActionTimes(starts, ends, is_known=True)


def _usual_nearness(runs: Sequence[MotionRun], ends: Sequence[int]) -> float | None:
    """How far the arm is from where its action ends when it begins; None where the runs of the task do not agree.

    Of each run the last candidate counts.
    """
    distances = [
        float(_distances_to_end(run, end)[run.action_candidates[-1]])
        for run, end in zip(runs, ends, strict=True)
        if run.action_candidates and not run.failed and run.signals.state is not None
    ]
    if len(distances) < MIN_RUNS:
        return None
    usual = median(distances)
    return usual if median(abs(d - usual) for d in distances) <= ALIKE * usual else None


def _distances_to_end(run: MotionRun, end: int) -> np.ndarray:
    """Of the arm to where it is as the action ends, [end], in the source's units."""
    state = run.signals.state
    assert state is not None
    return np.linalg.norm(state[:end] - state[end - 1], axis=1)


def _start_by_nearness(run: MotionRun, end: int, nearness: float) -> int | None:
    """The frame from which on the arm is as near to its end as other arms were when they began to act."""
    if run.signals.state is None:
        return None
    far = np.flatnonzero(_distances_to_end(run, end) > nearness)
    return int(far[-1]) + 1 if far.size else None


def _start_as_in_reference(run: MotionRun, runs: Sequence[MotionRun], starts: Sequence[int | None]) -> int | None:
    """In a failed run that came farther than where its reference run began to act: the frame nearest to that place."""
    if run.match is None or run.signals.state is None:
        return None
    reference, start = runs[run.match.run], starts[run.match.run]
    if start is None or run.match.frame < start or reference.signals.state is None:
        return None
    return int(np.linalg.norm(run.signals.state - reference.signals.state[start], axis=1).argmin()) or None


def _action_end(run: MotionRun, config: MotionConfig) -> int:
    """First frame after the action: where a successful arm has let go, else where it goes home or comes to rest."""
    kinds = [event.kind for event in run.gripper_events]
    if not run.failed and "close" in kinds and kinds[-1] == "open":
        return min(run.final_rest, run.gripper_events[-1].moment) or len(run)
    return task_end(run, config)


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


def _shown_start(candidates: Sequence[int], clock: np.ndarray, usual_s: float, config: MotionConfig) -> int | None:
    """The candidate nearest to the task's start time; None where the run shows none near it."""
    nearest = min(candidates, key=lambda frame: abs(clock[frame] - usual_s), default=None)
    tolerance_s = max(config.step_min_s, usual_s * NEAR_START)
    return nearest if nearest is not None and abs(clock[nearest] - usual_s) <= tolerance_s else None


def _label(
    run: MotionRun, start: int | None, end: int, times: _ActionTimes, action: str, config: MotionConfig
) -> EpisodeLabel:
    completed = not run.failed

    only_reached = _only_reached(run, start, times)
    if only_reached:
        segments = [Segment("Reach", 0, end, STEP, False, 0)]
    elif start is None:
        return one_step_label(run, action, config)
    else:
        segments = [
            Segment("Reach", 0, start, STEP, True, 0),
            Segment(action, start, end, STEP, completed, 1),
        ]
    parts = split_at_stand_stills(segments, run.stand_stills, run.signals.fps)
    parts += ending(run, end)
    # A failed run that only reached was to act, too: its second planned step was never attempted
    return plain_label(parts, 2, run.signals.task, step_names=("Reach", action))


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
