"""The `motion` annotator: segments from gripper events, speed and visual change. Deterministic, on CPU, no model.

Where the task text says what is to be carried where and a gripper closes as often, steps are attempts at that plan
(annotate.carrying). Else it sees when the arm does something else, not what it does: steps are named after the motion,
and how many the whole task needs it takes from what it saw. It is the embedded default and the yardstick for others.
"""

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from annotate.carrying import Swing, attempts, carrying_steps, outcomes
from annotate.segments import DONE, IDLE, STEP, Segment
from annotate.task_text import moves

CODE_VERSION = "motion-2"


class MotionConfig(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    smooth_s: float = Field(default=0.15, gt=0, description="window of the moving averages")
    pause_speed: float = Field(default=0.06, gt=0, description="share of the fast speed below which the arm pauses")
    end_speed: float = Field(default=0.15, gt=0, description="share of it below which a run is taken to have ended")
    idle_min_s: float = Field(default=1.0, gt=0, description="a shorter stand-still is part of a step")
    end_min_s: float = Field(default=0.25, gt=0, description="a stand-still at the end this long is an end of its own")
    gripper_swing: float = Field(default=0.25, gt=0, le=1, description="share of its range that an event covers")
    slow_speed: float = Field(default=0.35, gt=0, description="a dip below this share of the speed around parts steps")
    step_min_s: float = Field(default=0.8, gt=0, description="shorter pieces join a neighbour")


@dataclass(frozen=True)
class Signals:
    """What the annotator sees of one episode; arrays [n], None where the source has no such measurement."""

    fps: float
    change: np.ndarray
    speed: np.ndarray | None
    gripper: np.ndarray | None
    success: bool | None = None
    task: str | None = None


def annotate(signals: Signals, config: MotionConfig) -> tuple[list[Segment], int]:
    """Segments that tile the episode, and the number of planned steps: the text's, else of steps seen, at least 1."""
    n = len(signals.change)
    window = max(1, round(config.smooth_s * signals.fps))
    activity = _smooth(signals.change if signals.speed is None else signals.speed, window)
    activity[0] = activity[min(1, n - 1)]
    fast = float(np.percentile(activity, 90))
    idle = _rests(activity < config.pause_speed * fast, activity < config.end_speed * fast, config, signals.fps)
    swings = gripper_swings(signals.gripper, config, signals.fps) if signals.gripper is not None else []
    plan = moves(signals.task)
    tries = attempts(swings, activity, np.asarray(signals.gripper, np.float64)) if plan and swings else []
    ends = outcomes(tries, len(plan), signals.success)
    if ends is not None:
        return carrying_steps(tries, ends, plan, idle, n, signals.fps, signals.success)
    events = [(s.end, s.kind) for s in swings]
    cuts, source = _cuts(events, activity, idle, config, signals.fps)
    return _segments(n, idle, cuts, events, source, signals.success)


def _smooth(values: np.ndarray, window: int) -> np.ndarray:
    """Centred moving average, float64 [n], the ends repeated."""
    padded = np.pad(np.asarray(values, np.float64), (window // 2, window - 1 - window // 2), mode="edge")
    return np.convolve(padded, np.ones(window) / window, mode="valid")


def _rests(pausing: np.ndarray, ending: np.ndarray, config: MotionConfig, fps: float) -> list[tuple[int, int]]:
    """Stand-stills, half-open: pauses of `idle_min_s`, and the end of the run from where the arm moves no more."""
    n = len(pausing)
    if pausing.all() or ending.all():
        return []
    last = n - int(np.argmin(ending[::-1]))  # first frame of the stand-still at the end; n without one
    edges = np.flatnonzero(np.diff(np.r_[False, pausing[:last], False].astype(np.int8)))
    runs = zip(edges[::2].tolist(), edges[1::2].tolist(), strict=True)
    rests = [(a, b) for a, b in runs if b - a >= max(1, round(config.idle_min_s * fps))]
    return [*rests, (last, n)] if n - last >= max(1, round(config.end_min_s * fps)) else rests


def gripper_swings(gripper: np.ndarray, config: MotionConfig, fps: float) -> list[Swing]:
    """Where a gripper has closed or opened: by at least `gripper_swing` of the episode's range within a second."""
    g = np.asarray(gripper, np.float64)
    span = float(g.max() - g.min())
    if span < 0.05:
        return []
    g = (g - g.min()) / span
    swings: list[Swing] = []
    reach, i = max(1, round(fps)), 0
    while i < len(g) - 1:
        ahead = g[i + 1 : i + 1 + reach] - g[i]
        far = int(np.argmax(np.abs(ahead)))
        if abs(ahead[far]) < config.gripper_swing:
            i += 1
            continue
        end = i + 1 + far
        while end < len(g) - 1 and abs(g[end + 1] - g[end]) > 0.02:
            end += 1
        while abs(g[i + 1] - g[i]) <= 0.02:
            i += 1
        kind = "close" if ahead[far] < 0 else "open"
        if not swings or swings[-1].kind != kind:
            swings.append(Swing(i, end, kind))
        i = end
    return swings


def _cuts(
    events: list[tuple[int, str]], activity: np.ndarray, idle: list[tuple[int, int]], config: MotionConfig, fps: float
) -> tuple[list[int], str]:
    """Frames at which one step ends and the next begins, and which signal showed them.

    Cuts nearer to each other, to a stand-still or to an end of the episode than a step may be short are left out.
    """
    n, shortest = len(activity), max(1, round(config.step_min_s * fps))
    found, source = [e[0] for e in events], "gripper"
    if not found:
        found, source = _dips(activity, config, shortest), "speed"
    walls = [0, n, *(x for span in idle for x in span)]
    cuts: list[int] = []
    for cut in found:
        free = all(abs(cut - w) >= shortest for w in (*walls, *cuts)) and not any(a <= cut < b for a, b in idle)
        if free:
            cuts.append(cut)
    return cuts, source


def _dips(activity: np.ndarray, config: MotionConfig, shortest: int) -> list[int]:
    """Frames where the motion slows down between two faster stretches, the deepest first."""
    n = len(activity)
    dips = []
    for i in range(shortest, n - shortest):
        around = activity[max(0, i - shortest) : i + shortest + 1]
        before, after = activity[max(0, i - 2 * shortest) : i].max(), activity[i : i + 2 * shortest].max()
        if activity[i] == around.min() and activity[i] < config.slow_speed * min(before, after):
            dips.append(i)
    return sorted(dips, key=lambda i: activity[i])


NAMES = {
    (None, "close"): "Reach and grasp",
    (None, "open"): "Move and open the gripper",
    ("close", "open"): "Carry and release",
    ("close", None): "Move with the gripper closed",
    ("open", "close"): "Move on and grasp",
    ("open", None): "Move away",
}


def _segments(
    n: int,
    idle: list[tuple[int, int]],
    cuts: list[int],
    events: list[tuple[int, str]],
    source: str,
    success: bool | None,
) -> tuple[list[Segment], int]:
    marks = sorted({0, n, *cuts, *(x for span in idle for x in span)})
    spans = list(pairwise(marks))
    resting = [any(a <= s and e <= b for a, b in idle) for s, e in spans]
    num_steps = resting.count(False)
    if num_steps == 0:  # nothing but rest: one step that was never completed
        return [Segment("Stand still", 0, n, IDLE, False)], 1
    kinds = dict(events)
    confidence = {"gripper": 0.6, "speed": 0.4}[source] if cuts else 0.3
    let_go = source == "gripper" and bool(cuts) and kinds.get(spans[-1][0]) == "open" and not resting[-1]
    if let_go and success is not False and num_steps > 1:
        resting[-1], num_steps = True, num_steps - 1  # letting go was the last thing done; the arm only goes home
    segments: list[Segment] = []
    step, last = 0, None
    for (start, end), rest in zip(spans, resting, strict=True):
        if rest:
            ending = step == num_steps and success is not False
            name, kind = ("Done", DONE) if ending else ("Stand still", IDLE)
            segments.append(Segment(name, start, end, kind, ending, None, confidence))
            continue
        event = kinds.get(end)
        name = NAMES.get((last, event)) or ("Move" if num_steps == 1 else f"Move, part {step + 1}")
        completed = not (success is False and step == num_steps - 1)
        segments.append(Segment(name, start, end, STEP, completed, step, confidence))
        step, last = step + 1, event or last
    return segments, num_steps
