"""Signals of one episode, and what they show by themselves: how fast the arm moves, where it is
idle, and each attempt of a gripper or hand to hold something. Spans are half-open, in frames.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import chain, pairwise

import numpy as np

from annotate.config import MotionConfig
from annotate.signal_lag import FAST_PERCENTILE
from annotate.spans import stretches
from core.domain.label import DONE, IDLE, Segment
from ingest.episode import EpisodeRecord
from ingest.signals.gripper import STARTED, STARTED_S


@dataclass(frozen=True)
class GripperCurve:
    """The gripper or hand of one arm over an episode.

    opening: [n], 0 (closed) to 1 (open) of its range over the dataset. Without a polarity 0 and 1
    may be exchanged.
    """

    opening: np.ndarray
    has_polarity: bool = True


NOT_LISTED = EpisodeRecord(episode_index=0, source_id="", fps=0.0, task=None)


@dataclass(frozen=True)
class Signals:
    """What is measured of one episode, where `Episode` has its facts: arrays [n], None if the source has no such thing.

    change: the visual change of the view in which most changes; phash: of the preferred camera.
    views: the cameras that it is labelled by, the preferred one first. tiny: of each usable camera
    the frames int64 [k] of its tiny pictures, and their pixels uint8 [k, p]. record: as its source
    lists it, where the lake holds it. pictures: of each camera, in the same order in all episodes
    of a task, the frames int64 [k], rising, and what they show, float32 [k, d]; None of a camera
    that this episode lacks.
    """

    fps: float
    change: np.ndarray
    speed: np.ndarray | None
    grippers: Sequence[GripperCurve] = ()
    success: bool | None = None
    task: str | None = None
    state: np.ndarray | None = None  # [n, d]
    episode_index: int = 0
    pictures: tuple[tuple[np.ndarray, np.ndarray] | None, ...] = ()
    phash: np.ndarray = field(default_factory=lambda: np.zeros(0, np.uint64))
    views: tuple[str, ...] = ()
    tiny: Mapping[str, tuple[np.ndarray, np.ndarray]] = field(default_factory=dict)
    record: EpisodeRecord = NOT_LISTED

    def __len__(self) -> int:
        return len(self.change)


MOVING_SHARE = 0.25  # of a move's highest speed: it begins and ends where the gripper is slower
TOGETHER_S = 3.0  # two hands that close within this time act on one thing


@dataclass(frozen=True)
class Attempt:
    """One closing, and the opening after it; frames.

    closes, closed: the last frame before the gripper closes, the first at which it has. opens,
    opened: the same of its opening; None where it never opens again.
    """

    closes: int
    closed: int
    opens: int | None = None
    opened: int | None = None


def gripper_attempts(
    grippers: Sequence[GripperCurve], config: MotionConfig, fps: float
) -> list[Attempt]:
    """The attempts of all grippers whose polarity is known, in time; two hands that act on one thing are one."""
    arm_attempts: list[tuple[int, Attempt]] = []
    for arm, gripper in enumerate(grippers):
        if gripper.has_polarity:
            arm_attempts += [
                (arm, attempt) for attempt in _attempts_of_gripper(gripper, config, fps)
            ]
    joined: list[tuple[int, Attempt]] = []
    for arm, attempt in sorted(arm_attempts, key=lambda item: item[1].closed):
        last = joined[-1] if joined else None
        if last is None or last[0] == arm or not _act_together(last[1], attempt, fps):
            joined.append((arm, attempt))
        else:
            joined[-1] = last[0], _joint_attempt(last[1], attempt)
    return [attempt for _, attempt in joined]


def _attempts_of_gripper(gripper: GripperCurve, config: MotionConfig, fps: float) -> list[Attempt]:
    attempts: list[Attempt] = []
    for start, end, closes in gripper_moves(gripper.opening, config, fps):
        is_closed = bool(attempts) and attempts[-1].opens is None
        if closes and not is_closed:
            attempts.append(Attempt(start, end))
        elif not closes and is_closed:
            attempts[-1] = replace(attempts[-1], opens=start, opened=end)
    return attempts


def _act_together(first: Attempt, second: Attempt, fps: float) -> bool:
    is_held = first.opens is None or second.closed < first.opens
    return is_held and second.closed - first.closed <= TOGETHER_S * fps


def _joint_attempt(first: Attempt, second: Attempt) -> Attempt:
    """Both hands hold when the second has closed, and no more when the first begins to open."""
    opens = [a.opens for a in (first, second) if a.opens is not None]
    opened = [a.opened for a in (first, second) if a.opened is not None]
    return Attempt(
        min(first.closes, second.closes),
        max(first.closed, second.closed),
        min(opens, default=None),
        max(opened, default=None),
    )


def gripper_moves(
    opening: np.ndarray, config: MotionConfig, fps: float
) -> list[tuple[int, int, bool]]:
    """Moves by at least `gripper_swing` of the episode's range, in time: last frame before, first after, closes?

    None where the episode uses less than that of the dataset's range: its gripper only trembles.
    A hand that slowly yields while it holds has not opened: a move is where the gripper is fast.

    Example: at 10 fps, the openings 1, 1, 0.5, 0, 0, 0 give one closing from frame 1 to frame 3.
    """
    low = float(np.min(opening))
    high = float(np.max(opening))
    if high - low < config.gripper_swing:
        return []
    relative = (np.asarray(opening, np.float64) - low) / (high - low)
    smooth = moving_average(relative, config.smooth_s, fps)
    rises = np.diff(smooth, prepend=smooth[0])
    moves = []
    for first, last in pairwise(_turning_frames(relative, config.gripper_swing)):
        speed = np.maximum(0.0, rises * np.sign(relative[last] - relative[first]))
        fastest = int(speed[first + 1 : last + 1].argmax()) + first + 1
        is_slow = speed < MOVING_SHARE * speed[fastest]
        slow_before = np.flatnonzero(is_slow[first + 1 : fastest])
        slow_after = np.flatnonzero(is_slow[fastest + 1 : last + 1])
        start = first + 1 + int(slow_before[-1]) if slow_before.size else first
        end = fastest + int(slow_after[0]) if slow_after.size else last
        moves.append((start, end, bool(relative[last] < relative[first])))
    return moves


def moving_average(values: np.ndarray, seconds: float, fps: float) -> np.ndarray:
    """Centred moving average over some seconds, one frame at least: float64 [n], the ends repeated."""
    window = max(1, round(seconds * fps))
    padded = np.pad(
        np.asarray(values, np.float64), (window // 2, window - 1 - window // 2), mode="edge"
    )
    return np.convolve(padded, np.ones(window) / window, mode="valid")


def _turning_frames(relative: np.ndarray, swing: float) -> list[int]:
    """Frames at which a signal [n] turns, such that it changes by `swing` or more from one to the next.

    The first is the start; the last is where the last such change ends.
    """
    turning = [0]
    best = 0  # the most extreme frame since the last turn
    direction = 0  # which way the signal goes
    for frame, value in enumerate(relative):
        ahead = (value - relative[best]) * (direction or 1)
        if direction == 0:
            if abs(ahead) >= swing:
                best = frame
                direction = 1 if ahead > 0 else -1
        elif ahead > 0:
            best = frame
        elif -ahead >= swing:
            turning.append(best)
            best = frame
            direction = -direction
    if direction:
        return [*turning, best]
    return turning


# An arm that stirs for less between two pauses rests; a shorter pause interrupts no step
LEAST_S = 0.3


def idle_spans(
    activity: np.ndarray, fast: float, config: MotionConfig, fps: float
) -> list[tuple[int, int]]:
    """The start of the episode until the arm sets out, pauses of at least `idle_min_s`, and its rest at the end.

    `activity` [n] is how fast the arm moves, `fast` its fast speed in the same unit. An arm that is
    slow all the time has no idle spans: its speeds say nothing.
    """
    n = len(activity)
    pausing = activity < config.pause_speed * fast
    resting = activity < config.end_speed * fast
    if pausing.all() or resting.all():
        return []
    sets_out = int(np.argmin(resting))
    # First frame of the rest at the end; n without one
    end_start = n - int(np.argmin(resting[::-1]))

    # Each pause between the two
    pauses = stretches(pausing[:end_start], config.idle_min_s * fps)
    spans = [(start, end) for start, end in pauses if start >= sets_out]
    if sets_out >= max(1, round(config.start_min_s * fps)):
        spans.insert(0, (0, sets_out))
    if n - end_start >= max(1, round(config.end_min_s * fps)):
        spans.append((end_start, n))

    # Two pauses between which the arm hardly stirs are one
    joined: list[tuple[int, int]] = []
    for start, end in spans:
        if joined and end < n and start - joined[-1][1] < LEAST_S * fps:
            joined[-1] = (joined[-1][0], end)
        else:
            joined.append((start, end))
    return joined


def idle_without_work(
    idle: Sequence[tuple[int, int]],
    works: Sequence[tuple[int, int]],
    n: int,
    config: MotionConfig,
    fps: float,
) -> list[tuple[int, int]]:
    """The idle spans of an episode of `n` frames without those in which a gripper works; what remains is long enough.

    Example: at 10 fps, an idle span of frames 20 to 50 in which a gripper closes from 30 to 34
    leaves 20 to 30 and 34 to 50; one that closes from 22 to 26 leaves 26 to 50.
    """
    pieces = list(idle)
    for start, end in works:
        earlier_pieces = [(first, min(last, start)) for first, last in pieces]
        later_pieces = [(max(first, end), last) for first, last in pieces]
        pieces = [p for p in (*earlier_pieces, *later_pieces) if p[0] < p[1]]

    def shortest(span: tuple[int, int]) -> float:
        if span[1] == n:
            return config.end_min_s
        if span[0] == 0:
            return config.start_min_s
        return config.idle_min_s

    return sorted({p for p in pieces if p[1] - p[0] >= shortest(p) * fps})


def split_at_idle(
    segments: Sequence[Segment], idle: Sequence[tuple[int, int]], fps: float
) -> list[Segment]:
    """The same segments, each step that idle spans interrupt in its parts; only the last part completes the step.

    Example: at 10 fps, a completed step of frames 0 to 100 with an idle span from 40 to 60 becomes
    a step 0 to 40 that is not completed, an idle segment 40 to 60, and a completed step 60 to 100.
    """
    return [*chain.from_iterable(_parts_of_step(segment, idle, fps) for segment in segments)]


def _parts_of_step(step: Segment, idle: Sequence[tuple[int, int]], fps: float) -> list[Segment]:
    if step.kind == IDLE:
        return [step]
    step_idle = [(max(a, step.start_frame), min(b, step.end_frame)) for a, b in idle]
    step_idle = [(a, b) for a, b in step_idle if b - a >= fps * LEAST_S]
    cuts = sorted({step.start_frame, step.end_frame, *chain.from_iterable(step_idle)})
    if len(cuts) == 2 and step.kind == DONE:  # done, and at rest
        return [step]
    parts: list[Segment] = []
    for start, end in pairwise(cuts):
        if any(a <= start and end <= b for a, b in step_idle):
            parts.append(Segment("Stand still", start, end, IDLE, False))
        else:
            completed = step.completed and (end == step.end_frame or step.kind == DONE)
            parts.append(replace(step, start_frame=start, end_frame=end, completed=completed))

    parts = _without_slivers(parts, LEAST_S * fps)
    # A completed step that ends with an idle span was complete when the arm came to rest
    if step.completed and parts[-1].kind == IDLE and len(parts) > 1:
        parts[-2] = replace(parts[-2], completed=True)
    return parts


def _without_slivers(parts: Sequence[Segment], shortest: float) -> list[Segment]:
    """The parts of a step, those of less than `shortest` frames as a part of the idle span beside them; one stays."""
    long_parts = [part for part in parts if part.kind != IDLE and len(part) >= shortest]
    if not long_parts:
        return list(parts)
    merged_parts: list[Segment] = []
    for part in parts:
        if part in long_parts:
            segment = part
        else:
            segment = replace(part, name="Stand still", kind=IDLE, completed=False, step=None)
        if merged_parts and merged_parts[-1].kind == IDLE == segment.kind:
            merged_parts[-1] = replace(merged_parts[-1], end_frame=segment.end_frame)
        else:
            merged_parts.append(segment)
    return merged_parts


@dataclass(frozen=True)
class Observed:
    """What is made out in the signals of one episode: not facts, as `Episode` has them, but what the arm seems to do.

    moves [n] bool: the arm is on its way.
    """

    signals: Signals
    activity: np.ndarray  # [n]: how fast the arm moves, smoothed
    idle: Sequence[tuple[int, int]]  # half-open spans of frames
    attempts: Sequence[Attempt]
    moves: np.ndarray

    def __len__(self) -> int:
        return len(self.activity)

    @property
    def fps(self) -> float:
        return self.signals.fps

    @property
    def failed(self) -> bool:
        """An episode whose source does not say whether it succeeded is taken as finished."""
        return self.signals.success is False

    @property
    def final_rest(self) -> int:
        """First frame of the rest at the end; n without one. An arm that never moves is at its task all the time."""
        return next((start for start, end in self.idle if end == len(self)), len(self)) or len(self)

    @cached_property
    def moving(self) -> np.ndarray:
        """How many frames outside of idle spans there are up to each frame, float64 [n]."""
        moves = np.ones(len(self))
        for start, end in self.idle:
            moves[start:end] = 0.0
        return np.cumsum(moves)

    @cached_property
    def moving_share(self) -> np.ndarray:
        """The share of the moving time up to each frame, float64 [n]; that of all time where nothing moves."""
        if not self.moving[-1]:
            return np.linspace(0, 1, len(self))
        return self.moving / self.moving[-1]

    @cached_property
    def way(self) -> np.ndarray:
        """How far the arm has moved before each frame, float64 [n + 1]."""
        return np.r_[0.0, np.cumsum(self.activity)]

    def lifts(self, attempt: Attempt) -> int:
        """First frame, LEAST_S or more after the fingers hold, at which the arm is on its way; n where it never is."""
        earliest = min(attempt.closed + round(LEAST_S * self.fps), len(self))
        moving_frames = np.flatnonzero(self.moves[earliest:])
        if moving_frames.size:
            return earliest + int(moving_frames[0])
        return len(self)

    def stay_s(self, attempt: Attempt) -> float:
        """Seconds that the arm stays where it grasps: before its fingers close, and until it lifts."""
        moving_frames = np.flatnonzero(self.moves[: attempt.closes])
        arrives = int(moving_frames[-1]) + 1 if moving_frames.size else 0
        return (self.lifts(attempt) - arrives) / self.fps

    def carried(self, attempt: Attempt) -> float:
        """How far the arm moved while the gripper was closed."""
        end = len(self) if attempt.opens is None else attempt.opens
        return float(self.way[end] - self.way[min(attempt.closed, end)])


def observe(signals: Signals, config: MotionConfig) -> Observed:
    n = len(signals)
    fps = signals.fps
    # Nothing leads to frame 0, so no speed is measured there: it takes the next frame's
    speed = signals.change if signals.speed is None else signals.speed
    activity = moving_average(speed, config.smooth_s, fps)
    activity[0] = activity[min(1, n - 1)]
    # Single jumps do not reach it
    fast = float(np.percentile(activity, FAST_PERCENTILE))

    # Before the arm sets out a gripper only takes its first pose
    way = np.cumsum(activity)
    has_set_out = (np.arange(n) >= STARTED_S * fps) & (way >= STARTED * way[-1])
    tries = [
        attempt
        for attempt in gripper_attempts(signals.grippers, config, fps)
        if has_set_out[attempt.closes]
    ]
    # An arm that stands still while its gripper closes or opens is at work
    works = [(t.closes, max(t.closed, t.closes + round(LEAST_S * fps))) for t in tries]
    works += [
        (t.opens, max(t.opened, t.opens + round(LEAST_S * fps)))
        for t in tries
        if t.opens is not None and t.opened
    ]
    idle = idle_without_work(idle_spans(activity, fast, config, fps), works, n, config, fps)
    return Observed(signals, activity, idle, tries, moves=activity >= config.end_speed * fast)
