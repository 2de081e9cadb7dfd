"""Steps of a run that shows neither a plan nor a grasp: they are parted where the arm does something else.

The annotator then sees when a step ends, not what it is for: steps are unnamed, and as many are planned as are seen.
Where the runs of a task differ in that, those with more steps than is usual lose their least clear cuts.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np

from annotate.label import EpisodeLabel, plain_label
from annotate.motion.arm_events import speed_dips, turn_sizes, turns
from annotate.motion.config import MotionConfig
from annotate.motion.signals import MIN_RUNS, MotionRun
from annotate.motion.stand_stills import at_rest, lies_in_any, split_at_stand_stills
from annotate.motion.way_home import ending, task_end
from annotate.segments import STEP, Segment
from core.step_names import unnamed_step


def unplanned_labels(runs: Sequence[MotionRun], config: MotionConfig) -> list[EpisodeLabel]:
    """Label runs of one task; with MIN_RUNS of them none has more steps than is usual."""
    all_cuts = [_cuts(run, config) for run in runs]
    labels = [_label(run, cuts, cuts.frames, config) for run, cuts in zip(runs, all_cuts, strict=True)]
    if len(labels) < MIN_RUNS:
        return labels
    moving = [label.num_planned for label in labels if any(s.kind == STEP for s in label.segments)]
    usual = int(np.median(moving or [1]))
    return [
        _with_fewer_steps(label, run, cuts, usual, config)
        for label, run, cuts in zip(labels, runs, all_cuts, strict=True)
    ]


def one_step_label(run: MotionRun, name: str, config: MotionConfig) -> EpisodeLabel:
    """The label of a run that shows no part of its task: one step, which bears the task's name."""
    end = task_end(run, config)
    step = Segment(name, 0, end, STEP, not run.failed, 0)
    segments = split_at_stand_stills([step], run.stand_stills, run.signals.fps)
    segments += ending(run, end)
    note = f"nothing in the run shows when the parts of its task begin: {name}"
    return replace(plain_label(segments, 1, run.signals.task), notes=[note])


def without_steps_beyond(label: EpisodeLabel, reference: EpisodeLabel, frame: int) -> EpisodeLabel:
    """The label of a failed run without the steps that its reference run had not completed at `frame`."""
    completed = {s.step for s in reference.segments if s.step is not None and s.completed and s.end_frame <= frame}
    segments = []
    for s in label.segments:
        is_beyond = s.step is not None and s.step not in completed
        segments.append(replace(s, completed=False) if is_beyond else s)
    return replace(label, segments=segments)


@dataclass(frozen=True)
class _Cuts:
    """Frames at which one step of a run ends and the next begins, the clearest first; where its last one ends."""

    frames: list[int]
    end: int


def _cuts(run: MotionRun, config: MotionConfig) -> _Cuts:
    """Those where a gripper moves; without such moves, the turns of the arm; where none shows, the dips of its speed.

    A cut that is nearer to another one, to a stand-still or to an end of the task than a step may be short is left out.
    """
    fps, state = run.signals.fps, run.signals.state
    end = task_end(run, config)
    shortest = max(1, round(config.step_min_s * fps))
    turning = [] if state is None else turns(state, config, fps)
    if run.gripper_events:
        candidates = [event.moment for event in run.gripper_events]
    elif state is not None and turning:
        sizes = turn_sizes(state, config, fps)
        candidates = sorted(turning, key=lambda frame: -sizes[frame])
    else:
        candidates = speed_dips(run.activity, config, shortest)

    boundaries = [0, end, *_edges(run)]
    frames: list[int] = []
    for moment in candidates:
        is_apart = all(abs(moment - boundary) >= shortest for boundary in boundaries)
        if moment < end and is_apart and not lies_in_any(moment, moment + 1, run.stand_stills):
            frames.append(moment)
            boundaries.append(moment)
    return _Cuts(frames, end)


def _edges(run: MotionRun) -> list[int]:
    """First frames of stand-stills and first frames after them."""
    return [edge for span in run.stand_stills for edge in span]


def _with_fewer_steps(
    label: EpisodeLabel, run: MotionRun, cuts: _Cuts, most_steps: int, config: MotionConfig
) -> EpisodeLabel:
    """The same label, or one from fewer cuts, the clearest; stand-stills part steps however few cuts there are."""
    frames = cuts.frames
    while label.num_planned > most_steps and frames:
        frames = frames[:-1]
        label = _label(run, cuts, frames, config)
    return label


def _label(run: MotionRun, cuts: _Cuts, frames: Sequence[int], config: MotionConfig) -> EpisodeLabel:
    """Segments between the cuts and the edges of stand-stills: those in a stand-still are no steps."""
    edges = [edge for edge in _edges(run) if edge < cuts.end]
    spans = list(pairwise(sorted({0, cuts.end, *frames, *edges})))
    shortest = config.step_min_s * run.signals.fps
    # An arm that stirs for less than a step between two stand-stills, or before one, does nothing of its own
    moving = [span for span in spans if not lies_in_any(*span, run.stand_stills)]
    steps = [span for span in moving if span[1] - span[0] >= shortest] or moving
    if not steps:  # one step that was never completed
        return plain_label([at_rest(0, len(run), is_done=False)], 1, run.signals.task)

    # Number the steps in time; all but the last one of a failed run are completed
    segments: list[Segment] = []
    step = 0
    for start, end in spans:
        if (start, end) not in steps:
            segments.append(at_rest(start, end, is_done=False))
            continue
        completed = not run.failed or step < len(steps) - 1
        segments.append(Segment(unnamed_step(step), start, end, STEP, completed, step, named=False))
        step += 1
    segments += ending(run, cuts.end)
    return plain_label(segments, len(steps), run.signals.task)
