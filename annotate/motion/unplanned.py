"""Steps of a run whose task text gives no plan: they are parted where the arm does something else.

The annotator then sees when a step ends, not what it is for: steps are named after the motion, and as many are planned
as are seen. Where the runs of a task differ in that, those with more steps than is usual lose their least clear cuts.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import pairwise

import numpy as np

from annotate.label import EpisodeLabel, plain_label
from annotate.motion.arm_events import speed_dips
from annotate.motion.config import MotionConfig
from annotate.motion.gripper_events import closings
from annotate.motion.signals import MotionRun, have_slow_grasps
from annotate.motion.stand_stills import at_rest, lies_in_any
from annotate.segments import IDLE, STEP, Segment

MIN_RUNS = 3  # of a task: fewer do not show how many steps are usual for it

# Confidence: what parted the steps
BY_GRIPPER = 0.6
BY_SPEED = 0.4
ONE_STEP = 0.3

# By the gripper's event before a step (None: there is none yet) and the one at which it ends
STEP_NAMES = {
    (None, "begin to close"): "Reach",
    ("open", "begin to close"): "Move on",
    ("begin to close", "close"): "Grasp",
    (None, "close"): "Reach and grasp",
    (None, "open"): "Move and open the gripper",
    ("close", "open"): "Carry and release",
    ("close", None): "Move with the gripper closed",
    ("open", "close"): "Move on and grasp",
    ("open", None): "Move away",
}


def unplanned_labels(runs: Sequence[MotionRun], config: MotionConfig) -> list[EpisodeLabel]:
    """Label runs of one task; with MIN_RUNS of them none has more steps than is usual."""
    slow_grasps = have_slow_grasps(runs, config)
    moments_of_run = [_gripper_moments(run, slow_grasps=slow_grasps) for run in runs]
    labels = [_label(run, moments, config) for run, moments in zip(runs, moments_of_run, strict=True)]
    if len(labels) < MIN_RUNS:
        return labels
    moving = [label.num_planned for label in labels if label.segments[0].kind != IDLE]
    usual = int(np.median(moving or [1]))
    return [
        _with_fewer_steps(label, run, moments, usual, config)
        for run, moments, label in zip(runs, moments_of_run, labels, strict=True)
    ]


def without_steps_beyond(label: EpisodeLabel, reference: EpisodeLabel, frame: int) -> EpisodeLabel:
    """The label of a failed run without the steps that its reference run had not completed at `frame`."""
    completed = {s.step for s in reference.segments if s.step is not None and s.completed and s.end_frame <= frame}
    segments = []
    for s in label.segments:
        is_beyond = s.step is not None and s.step not in completed
        segments.append(replace(s, completed=False) if is_beyond else s)
    return replace(label, segments=segments)


def _gripper_moments(run: MotionRun, *, slow_grasps: bool) -> dict[int, str]:
    """What the gripper does, by frame; slow ones also show when they begin to close."""
    moments = {event.moment: event.kind for event in run.gripper_events}
    begins = {event.start: "begin to close" for event in closings(run.gripper_events)} if slow_grasps else {}
    return dict(sorted((begins | moments).items()))


def _with_fewer_steps(
    label: EpisodeLabel, run: MotionRun, moments: Mapping[int, str], most_steps: int, config: MotionConfig
) -> EpisodeLabel:
    """The same label, or one from fewer cuts, the clearest; stand-stills part steps however few cuts there are."""
    num_cuts = len(label.segments)
    while label.num_planned > most_steps and num_cuts > 0:
        num_cuts -= 1
        label = _label(run, moments, config, num_cuts)
    return label


def _label(
    run: MotionRun, moments: Mapping[int, str], config: MotionConfig, max_cuts: int | None = None
) -> EpisodeLabel:
    cuts = sorted(_cuts(run, moments, config)[:max_cuts])
    segments = _segments(run, cuts, moments)
    num_steps = sum(segment.kind == STEP for segment in segments)
    return plain_label(segments, max(1, num_steps), run.signals.task)


def _cuts(run: MotionRun, moments: Mapping[int, str], config: MotionConfig) -> list[int]:
    """Frames at which one step ends and the next begins, the clearest first.

    Those where the gripper has closed or opened; without such events, the dips of the speed. A cut that is nearer to
    another one, to a stand-still or to an end of the run than a step may be short is left out.
    """
    n = len(run)
    shortest = max(1, round(config.step_min_s * run.signals.fps))
    # The gripper's events show steps better than the speed does, so the two are not mixed
    candidates = list(moments) or speed_dips(run.activity, config, shortest)
    boundaries = [0, n, *_edges(run)]
    cuts: list[int] = []
    for moment in candidates:
        is_apart = all(abs(moment - boundary) >= shortest for boundary in boundaries)
        if is_apart and not lies_in_any(moment, moment + 1, run.stand_stills):
            cuts.append(moment)
            boundaries.append(moment)
    return cuts


def _edges(run: MotionRun) -> list[int]:
    """First frames of stand-stills and first frames after them."""
    return [edge for span in run.stand_stills for edge in span]


def _segments(run: MotionRun, cuts: Sequence[int], event_at: Mapping[int, str]) -> list[Segment]:
    """Segments between the cuts and the edges of stand-stills: those in a stand-still are no steps."""
    spans = list(pairwise(sorted({0, len(run), *cuts, *_edges(run)})))
    is_step = _are_steps(run, spans, cuts, event_at)
    if not any(is_step):  # one step that was never completed
        return [at_rest(0, len(run), None, is_done=False)]

    # Number the steps in time; all but the last one of a failed run are completed
    num_steps = is_step.count(True)
    confidence = _confidence(run, cuts)
    segments: list[Segment] = []
    step = 0
    last_event: str | None = None
    for (start, end), moves in zip(spans, is_step, strict=True):
        if moves:
            event = event_at.get(end)
            # A step is named by what the gripper did last and what it does at the step's end
            name = _step_name(last_event, event, step, num_steps)
            completed = not run.failed or step < num_steps - 1
            segments.append(Segment(name, start, end, STEP, completed, step, confidence))
            step += 1
            last_event = event or last_event
        else:
            # Rest between steps is idle; only rest after the last step of a run that did not fail is `done`
            is_done = step == num_steps and not run.failed
            segments.append(at_rest(start, end, confidence, is_done=is_done))
    return segments


def _are_steps(
    run: MotionRun, spans: Sequence[tuple[int, int]], cuts: Sequence[int], event_at: Mapping[int, str]
) -> list[bool]:
    """Which of the spans are steps."""
    is_step = [not lies_in_any(start, end, run.stand_stills) for start, end in spans]

    # A run that did not fail and that has let go as its last step only goes home: that is no step
    if cuts and not run.failed and is_step.count(True) > 1:
        last_start, _ = spans[-1]
        is_step[-1] = is_step[-1] and event_at.get(last_start) != "open"
    return is_step


def _step_name(event_before: str | None, event: str | None, step: int, num_steps: int) -> str:
    if (event_before, event) in STEP_NAMES:
        return STEP_NAMES[event_before, event]
    return "Move" if num_steps == 1 else f"Move, part {step + 1}"


def _confidence(run: MotionRun, cuts: Sequence[int]) -> float:
    if not cuts:
        return ONE_STEP
    return BY_GRIPPER if run.gripper_events else BY_SPEED
