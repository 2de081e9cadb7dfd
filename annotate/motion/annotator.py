"""The `motion` annotator: segments from gripper, state, speed and visual change. Deterministic, on CPU, no model.

Where the task text says what is to be carried where and a gripper closes as often, steps are attempts at that plan
(`carrying`). Where it asks for one other thing, the arm first reaches it and then acts. Else it sees when the
arm does something else, not what it does: steps are named after the motion, and how many the whole task needs it takes
from what it saw. It is the embedded default and the yardstick for others.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from statistics import median_low

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from annotate.label import EpisodeFrame, EpisodeLabel, plain_label
from annotate.motion import unfinished
from annotate.motion.carrying import MISSED, Swing, around_rest, attempts, carrying_steps, outcomes
from annotate.motion.nearness import Reached
from annotate.motion.task_text import Move, deed, moves
from annotate.segments import DONE, IDLE, STEP, Segment

CODE_VERSION = "motion-7"
ENOUGH = 3  # runs of a task that show how many steps are usual for it
LATER = 0.15  # of what remains of a run, from where its arm has turned to where it meets its thing
GRIPPED, TURNED, TAKEN, WHOLE = 0.6, 0.5, 0.4, 0.3  # confidence: what showed a deed's beginning; taken from other runs


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
    turn_s: float = Field(default=0.4, gt=0, description="the arm's ways before and after a turn are this long")
    turn: float = Field(default=0.13, gt=0, description="share of the largest turn, back at full speed, that counts")


@dataclass(frozen=True)
class Signals:
    """What the annotator sees of one episode; arrays [n], None where the source has no such measurement."""

    fps: float
    change: np.ndarray
    speed: np.ndarray | None
    gripper: np.ndarray | None
    success: bool | None = None
    task: str | None = None
    state: np.ndarray | None = None  # [n, d]
    picture: np.ndarray | None = None  # luma of the first frame, [p]
    episode_index: int = 0  # by which labels of failed runs name this one


@dataclass(frozen=True)
class _Label:
    """Segments that tile the episode, and the number of planned steps: the text's, else of steps seen, at least 1.

    `reached` is set of a failed run: its `run` counts among the runs of the task that were annotated together.
    """

    segments: list[Segment]
    num_planned: int
    reached: Reached | None = None


@dataclass(frozen=True)
class MotionRun:
    """What the signals of one run show."""

    signals: Signals
    activity: np.ndarray  # [n]
    idle: list[tuple[int, int]]
    swings: list[Swing]
    reached: Reached | None = None  # of a failed run
    shown: Sequence[int] = ()  # frames at which its deed may begin
    begins: int | None = None  # of a successful run: where it first does something to a thing

    def __len__(self) -> int:
        return len(self.activity)

    @property
    def rest(self) -> int:
        """First frame of the stand-still at the end; n without one."""
        return next((a for a, b in self.idle if b == len(self)), len(self))


def annotate(runs: Sequence[Signals], config: MotionConfig) -> list[EpisodeLabel]:
    """Label the runs of one task together: they have the same steps, unless what is seen says otherwise."""
    labels = _labels(runs, config)
    return [
        plain_label(label.segments, label.num_planned, run.task, _as_episode_frame(label.reached, runs))
        for run, label in zip(runs, labels, strict=True)
    ]


def _as_episode_frame(reached: Reached | None, runs: Sequence[Signals]) -> EpisodeFrame | None:
    return None if reached is None else EpisodeFrame(runs[reached.run].episode_index, reached.frame)


def compared(runs: Sequence[Signals], config: MotionConfig) -> list[MotionRun]:
    """What the signals of each run of a task show, and how far the failed ones came beside the successful ones."""
    seen = [_seen(s, config) for s in runs]
    plan, text = moves(runs[0].task), deed(runs[0].task)
    shown = [_beginnings(r, config) if text else [] for r in seen]
    begins = [_first_deed(r, plan, own) for r, own in zip(seen, shown, strict=True)]
    if any(s.success is False for s in runs):
        shapes = zip(runs, seen, begins, strict=True)
        known = [unfinished.Run(s.success, s.state, s.gripper, s.picture, r.swings, b) for s, r, b in shapes]
        near = unfinished.how_far(known, one_thing=bool(text) or len(plan) == 1)
        seen = [replace(r, reached=n) for r, n in zip(seen, near, strict=True)]
    return [replace(r, shown=own, begins=begin) for r, own, begin in zip(seen, shown, begins, strict=True)]


def _labels(runs: Sequence[Signals], config: MotionConfig) -> list[_Label]:
    seen = compared(runs, config)
    plan, text = moves(runs[0].task), deed(runs[0].task)
    shown, begins = [r.shown for r in seen], [r.begins for r in seen]
    found = {i: label for i, r in enumerate(seen) if plan and (label := _carrying(r, plan, begins))}
    others = [i for i in range(len(seen)) if i not in found]
    rest = [seen[i] for i in others]
    made = _reach_and_act(rest, [shown[i] for i in others], text, config) if text else _as_seen(rest, config)
    found |= zip(others, made, strict=True)
    if not text:
        found |= {i: _as_far_as(found[i], found) for i in others}
    return [found[i] for i in range(len(seen))]


def _seen(s: Signals, config: MotionConfig) -> MotionRun:
    n = len(s.change)
    window = max(1, round(config.smooth_s * s.fps))
    activity = _smooth(s.change if s.speed is None else s.speed, window)
    activity[0] = activity[min(1, n - 1)]
    fast = float(np.percentile(activity, 90))
    idle = _rests(activity < config.pause_speed * fast, activity < config.end_speed * fast, config, s.fps)
    swings = gripper_swings(s.gripper, config, s.fps) if s.gripper is not None else []
    swings = [x for x in swings if x.start >= _margin(config, s.fps)]  # one as the run begins only takes its pose
    return MotionRun(s, activity, idle, swings)


def _as_far_as(label: _Label, found: Mapping[int, _Label]) -> _Label:
    """The label of a failed run without the steps that the successful run which it came as far as had not completed."""
    near = label.reached
    if near is None:
        return label
    done = {
        s.step for s in found[near.run].segments if s.step is not None and s.completed and s.end_frame <= near.frame
    }
    segments = [s if s.step is None or s.step in done else replace(s, completed=False) for s in label.segments]
    return replace(label, segments=segments)


def _margin(config: MotionConfig, fps: float) -> int:
    return max(1, round(config.turn_s * fps / 2))


def _first_deed(r: MotionRun, plan: Sequence[Move], shown: Sequence[int]) -> int | None:
    """Where a successful run first does something to a thing: closes its gripper on it, or begins its deed."""
    if not r.signals.success:
        return None
    if plan:
        return next((s.end for s in r.swings if s.kind == "close"), None)
    return shown[-1] if shown else None


def _carrying(run: MotionRun, plan: Sequence[Move], begins: Sequence[int | None]) -> _Label | None:
    """Attempts at what the text says is to be carried; None where the gripper contradicts it.

    A failed run grasped nothing when it was elsewhere as it closed its gripper, or came no farther than a successful
    one that had not yet closed its own.
    """
    s = run.signals
    if not run.swings:
        return None
    tries = attempts(run.swings, run.activity, np.asarray(s.gripper, np.float64))
    ends = outcomes(tries, len(plan), s.success)
    if ends is None:
        return None
    if run.reached:
        near = run.reached
        astray = len(run) if near.left is None else near.left
        grasped = begins[near.run]
        never = grasped is not None and near.frame < grasped
        ends = [MISSED if never or t.closed > astray else end for t, end in zip(tries, ends, strict=True)]
    segments, planned = carrying_steps(tries, ends, plan, run.idle, len(run), s.fps, s.success)
    return _Label(segments, planned, run.reached)


def _reach_and_act(
    runs: Sequence[MotionRun], shown: Sequence[Sequence[int]], text: str, config: MotionConfig
) -> list[_Label]:
    """Two steps: to where it begins, and the deed; one where no run of the task shows when the deed begins.

    Of what may be its beginning (`shown`), a run takes what is nearest to the time that is usual for the task, counted
    while the arm moves; one that shows nothing near it takes that time. A failed run completed the first step if the
    successful one that it came as far as had.
    """
    ends, clocks = [_act_ends(r) for r in runs], [_moving_time(r) for r in runs]
    known = [(c[b[-1]], r.signals.success is not False) for c, b, r in zip(clocks, shown, runs, strict=True) if b]
    usual = median_low([t for t, ok in known if ok] or [t for t, _ in known]) if known else None
    begins = [_nearest(*x, usual, config) for x in zip(shown, clocks, ends, strict=True)]
    labels = []
    for cut, own, over, r in zip(begins, shown, ends, runs, strict=True):
        ok = r.signals.success is not False
        shown_by = GRIPPED if any((x.end, x.kind) == (cut, "close") for x in r.swings) else TURNED
        confidence = WHOLE if cut is None else shown_by if cut in own else TAKEN
        ended_early = not ok and usual is not None and (cut is None or _was_reaching(r.reached, begins))
        if ended_early:
            spans = [Segment("Reach", 0, over, STEP, False, 0, confidence)]
        elif cut is None:
            spans = [Segment(text, 0, over, STEP, ok, 0, confidence)]
        else:
            spans = [
                Segment("Reach", 0, cut, STEP, True, 0, confidence),
                Segment(text, cut, over, STEP, ok, 1, confidence),
            ]
        if over < len(r):
            name, kind = ("Done", DONE) if ok else ("Stand still", IDLE)
            spans.append(Segment(name, over, len(r), kind, ok, None, confidence))
        parts = [part for s in spans for part in around_rest(s, r.idle, r.signals.fps)]
        labels.append(_Label(parts, 2 if cut is not None or ended_early else 1, r.reached))
    return labels


def _moving_time(r: MotionRun) -> np.ndarray:
    """Seconds that the arm has moved before each frame, float64 [n]."""
    moves = np.ones(len(r))
    for a, b in r.idle:
        moves[a:b] = 0.0
    return np.r_[0.0, np.cumsum(moves)[:-1]] / r.signals.fps


def _nearest(
    shown: Sequence[int], clock: np.ndarray, over: int, usual: float | None, config: MotionConfig
) -> int | None:
    """Where a run's deed begins; None where no run of the task shows it, or the run ended before."""
    if usual is None:
        return None
    best = min(shown, key=lambda t: abs(clock[t] - usual), default=None)
    if best is not None and abs(clock[best] - usual) <= max(config.step_min_s, usual / 4):
        return best
    cut = int(np.searchsorted(clock[:over], usual))
    return cut if 0 < cut < over else best


def _was_reaching(near: Reached | None, begins: Sequence[int | None]) -> bool:
    """Was the successful run still reaching at the frame that a failed one came as far as?"""
    begun = begins[near.run] if near else None
    return near is not None and begun is not None and near.frame < begun


def _act_ends(r: MotionRun) -> int:
    """First frame after the deed: where the arm comes to rest, or where a successful one has let go before."""
    kinds = [s.kind for s in r.swings]
    if r.signals.success is not False and "close" in kinds and kinds[-1] == "open":
        return min(r.rest, r.swings[-1].end) or len(r)
    return r.rest or len(r)  # an arm that never moves is at the deed all the time


def _beginnings(r: MotionRun, config: MotionConfig) -> list[int]:
    """Where the deed may begin, in time: where the gripper has closed, else where the arm turns, else at its dip."""
    over, fps = _act_ends(r), r.signals.fps
    closed = [s.end for s in r.swings if s.kind == "close" and s.end <= over - _margin(config, fps)]
    if closed:
        return closed
    if r.signals.state is not None:
        seen = turns(r.signals.state[:over], config, fps)
    else:
        seen = _dips(r.activity[:over], config, max(1, round(config.step_min_s * fps)))[:1]
    return [t + round(LATER * (over - t)) for t in seen]


def turns(state: np.ndarray, config: MotionConfig, fps: float) -> list[int]:
    """Frames at which the arm changes its direction most, in time; `state` [n, d] in the source's units.

    With a and b its ways in the `turn_s` before and after a frame, a turn is (1 - cos) / 2 between them, times the
    shorter one's length beside what a fast arm covers in that time: 1 is back at full speed.
    """
    s, n, w = state, len(state), max(2, round(config.turn_s * fps))
    if n <= w:
        return []
    fast = float(np.percentile(np.linalg.norm(np.diff(s, axis=0), axis=1), 90)) * w
    at = np.arange(n)
    before, after = s - s[np.maximum(0, at - w)], s[np.minimum(n - 1, at + w)] - s
    a, b = np.linalg.norm(before, axis=1), np.linalg.norm(after, axis=1)
    cosine = (before * after).sum(axis=1) / np.maximum(a * b, 1e-12)
    turn = (1 - cosine) / 2 * np.minimum(a, b) / max(fast, 1e-12)
    return [
        t
        for t in range(w // 2, n - w // 2)
        if turn[t] > config.turn and turn[t] == turn[max(0, t - w) : t + w + 1].max()
    ]


def _as_seen(runs: Sequence[MotionRun], config: MotionConfig) -> list[_Label]:
    """Steps where the arm does something else; with ENOUGH runs none has more of them than is usual."""
    labels = [_steps_seen(r, config) for r in runs]
    if len(labels) < ENOUGH:
        return labels
    usual = int(np.median([label.num_planned for label in labels if label.segments[0].kind != IDLE] or [1]))
    found = []
    for r, label in zip(runs, labels, strict=True):
        kept = len(label.segments)
        while label.num_planned > usual and kept > 0:
            kept -= 1
            label = _steps_seen(r, config, kept)
        found.append(label)
    return found


def _steps_seen(r: MotionRun, config: MotionConfig, most_cuts: int | None = None) -> _Label:
    events = [(s.end, s.kind) for s in r.swings]
    cuts, source = _cuts(events, r.activity, r.idle, config, r.signals.fps)
    segments, planned = _segments(len(r), r.idle, sorted(cuts[:most_cuts]), events, source, r.signals.success)
    return _Label(segments, planned, r.reached)


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

    The clearest first. Those nearer to another, to a stand-still or to an end than a step may be short are left out.
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
    confidence = {"gripper": GRIPPED, "speed": TAKEN}[source] if cuts else WHOLE
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
