"""When a gripper or hand closes and opens, and which of that grasps and releases something."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Literal

import numpy as np

from annotate.motion.config import MotionConfig

MIN_RANGE = 0.1  # of the dataset's range: a gripper that moves less in the whole episode only trembles
REST_SHARE = 0.1  # of a move: so near to its first or last level, it has not begun, or has ended
CUT_OFF_SHARE = 0.4  # of the least swing: a move that the end of the run cuts off counts from this size on
TWITCH_S, TWITCH_SWING = 0.4, 0.6  # a small move that is taken back so soon is none
# At the latest so long after they begin to move, the fingers of a hand or a gripper hold, and both let go
HAND_HOLDS_S, GRIPPER_HOLDS_S, LETS_GO_S = 0.5, 2.0, 0.25
LONGEST_END_S = 0.5  # from that moment to the end of the event
SET_OUT = 0.05  # of the arm's way: before that a gripper only takes its first pose
TOGETHER_S = 1.5  # two hands that close, or open, within this time act on one thing
EMPTY_CLOSE_MARGIN = 0.15  # an empty gripper closes further than one holding an object, by this share of its range

type EventKind = Literal["close", "open", "move"]


@dataclass(frozen=True)
class GripperCurve:
    """The gripper or hand of one arm over a run.

    opening: [n], 0 (closed) to 1 (open) of its range over the dataset. Without a polarity 0 and 1 may be exchanged.
    """

    opening: np.ndarray
    has_polarity: bool = True
    is_hand: bool = False


@dataclass(frozen=True)
class GripperEvent:
    """One closing or opening of a gripper; a "move" where nothing shows which of both it is.

    start, end: the last frame at rest before it, the first one after it. moment: when the fingers hold, or let go.
    arms: positions of the grippers that do it, of those of the run.
    """

    start: int
    end: int
    kind: EventKind
    moment: int
    arms: tuple[int, ...] = (0,)


def events_of_arms(
    grippers: Sequence[GripperCurve], way: np.ndarray, config: MotionConfig, fps: float, *, may_end_closed: bool
) -> list[GripperEvent]:
    """The grasps and releases of all grippers, in time; moves, where no gripper has a polarity.

    `way` [n]: how far the arm has moved by each frame, 0..1. `may_end_closed`: the run may end with a thing held.
    """
    any_polarity = any(gripper.has_polarity for gripper in grippers)
    events: list[GripperEvent] = []
    for arm, gripper in enumerate(grippers):
        own = [replace(e, arms=(arm,)) for e in gripper_events(gripper, config, fps)]
        if gripper.has_polarity:
            events += grasps_and_releases(own, gripper, way, may_end_closed=may_end_closed)
        elif not any_polarity:
            events += [replace(event, kind="move") for event in own if way[event.start] >= SET_OUT]
    return sorted(events, key=lambda event: (event.moment, event.arms))


def joined_hands(events: Iterable[GripperEvent], fps: float) -> list[GripperEvent]:
    """The events in time, those of two hands that act together as one.

    Both hold when the second one has closed, and hold no more when the first one opens.
    """
    joined: list[GripperEvent] = []
    for event in events:
        last = joined[-1] if joined else None
        if last and last.kind == event.kind and _act_together(last, event, fps):
            arms = tuple(sorted({*last.arms, *event.arms}))
            late = event if event.kind == "close" else last
            joined[-1] = replace(late, start=min(last.start, event.start), arms=arms)
        else:
            joined.append(event)
    return joined


def _act_together(first: GripperEvent, second: GripperEvent, fps: float) -> bool:
    return set(first.arms).isdisjoint(second.arms) and second.moment - first.moment <= TOGETHER_S * fps


def gripper_events(gripper: GripperCurve, config: MotionConfig, fps: float) -> list[GripperEvent]:
    """Closings and openings in turn, each by at least `gripper_swing` of the episode's range; twitches left out.

    Example: at 10 fps, the openings 1, 1, 0.5, 0, 0, 0 give one closing event from frame 1 to frame 3.
    """
    opening = gripper.opening
    low, high = float(np.min(opening)), float(np.max(opening))
    if high - low < MIN_RANGE:
        return []
    relative = (np.asarray(opening, np.float64) - low) / (high - low)
    extremes = _without_twitches(_extremes(relative, config.gripper_swing), relative, fps)
    return [_event(relative, first, last, fps, is_hand=gripper.is_hand) for first, last in pairwise(extremes)]


def _extremes(relative: np.ndarray, swing: float) -> list[int]:
    """Frames at which a signal [n] turns, such that it changes by `swing` or more from one to the next.

    The first is the start; the last is where the last such change ends.
    """
    turning = [0]
    best = 0  # the most extreme frame since the last turn
    direction = 0
    last = len(relative) - 1
    for frame, value in enumerate(relative):
        if direction == 0:
            # Not yet known which way it goes first
            if abs(value - relative[0]) >= swing:
                direction, best = (1 if value > relative[0] else -1), frame
            continue
        ahead = (value - relative[best]) * direction
        if ahead > 0:
            best = frame
        elif -ahead >= swing or (frame == last and -ahead >= CUT_OFF_SHARE * swing and _is_moving(relative)):
            turning.append(best)
            best, direction = frame, -direction
    return [*turning, best] if direction else turning


def _is_moving(relative: np.ndarray) -> bool:
    """Does the signal still change as the run ends?"""
    return len(relative) > 2 and abs(relative[-1] - relative[-3]) > 0.02


def _without_twitches(extremes: Sequence[int], relative: np.ndarray, fps: float) -> list[int]:
    """A small move there and back, with hardly a stay between, is taken out."""
    steady: list[int] = list(extremes)
    k = 1
    while k < len(steady) - 1:
        before, turn, after = (float(relative[steady[j]]) for j in (k - 1, k, k + 1))
        swing = max(abs(turn - before), abs(turn - after))
        near = np.abs(relative[steady[k - 1] : steady[k + 1] + 1] - turn) < REST_SHARE
        if swing < TWITCH_SWING and near.sum() < TWITCH_S * fps:
            del steady[k : k + 2]
            k = max(1, k - 1)
        else:
            k += 1
    return steady


def _event(relative: np.ndarray, first: int, last: int, fps: float, *, is_hand: bool) -> GripperEvent:
    """The move from one extreme to the next."""
    part = relative[first : last + 1]
    done = (part - part[0]) / (part[-1] - part[0])  # 0..1 over the move
    kind = "close" if part[-1] < part[0] else "open"
    start = first + int(np.flatnonzero(done <= REST_SHARE)[-1]) if (done <= REST_SHARE).any() else first
    after_start = done[start - first :]
    rests = start + int(np.argmax(after_start >= 1 - REST_SHARE))
    halfway = start + int(np.argmax(after_start >= 0.5))

    # A gripper stops where it holds a thing; the fingers of a hand go on closing round it
    if kind == "open":
        moment = min(halfway, start + max(1, round(LETS_GO_S * fps)))
    elif is_hand:
        moment = min(halfway, start + max(1, round(HAND_HOLDS_S * fps)))
    else:
        moment = min(rests, start + max(1, round(GRIPPER_HOLDS_S * fps)))
    end = min(max(rests, moment), moment + max(1, round(LONGEST_END_S * fps)))
    return GripperEvent(start, end, kind, moment)


def grasps_and_releases(
    events: Sequence[GripperEvent], gripper: GripperCurve, way: np.ndarray, *, may_end_closed: bool
) -> list[GripperEvent]:
    """The closings of one gripper that may grasp, and the openings after them.

    An opening before any closing only makes ready. A closing before the arm has set out takes a pose. A closing after a
    release that is never opened again goes with the way home, unless the gripper stays wider than when it is empty, or
    the run may end with a thing in it.
    """
    meant: list[GripperEvent] = []
    for event in events:
        is_closed = bool(meant) and meant[-1].kind == "close"
        if event.kind == "close":
            if not is_closed and way[event.start] >= SET_OUT:
                meant.append(event)
        elif is_closed:
            meant.append(event)
    ends_closed = len(meant) > 1 and meant[-1].kind == "close"
    if ends_closed and not may_end_closed and not _holds_something(meant[-1], gripper):
        meant.pop()
    return meant


def _holds_something(closing: GripperEvent, gripper: GripperCurve) -> bool:
    """Does a gripper stay wider after a closing than where it is emptiest? The fingers of a hand do not show it."""
    opening = gripper.opening
    return not gripper.is_hand and float(np.median(opening[closing.end :]) - opening.min()) > EMPTY_CLOSE_MARGIN


def edge_frames(config: MotionConfig, fps: float) -> int:
    """How many frames at the edge of a run, or before the end of its action, a gripper event is not believed in."""
    return max(1, round(config.turn_s * fps / 2))


def closings(events: Sequence[GripperEvent]) -> list[GripperEvent]:
    return [event for event in events if event.kind == "close"]


def next_opening(events: Sequence[GripperEvent], closing: GripperEvent) -> GripperEvent | None:
    """The first opening after a closing by one of its hands; None where none opens any more."""
    for event in events:
        is_later = event.kind == "open" and event.moment > closing.moment
        if is_later and not set(event.arms).isdisjoint(closing.arms):
            return event
    return None
