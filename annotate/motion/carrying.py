"""Steps of a run that carries things about: each closing of the gripper is an attempt, and each has its outcome.

What the gripper and the arm do tells attempts apart; the task text tells how many things are to be moved and what they
are called. An arm that closes its gripper more often than there are things has failed as often: with those attempts
that carried the least far.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from annotate.motion.task_text import Move
from annotate.segments import DONE, IDLE, STEP, Segment

PLACED, DROPPED, MISSED, HELD = "placed", "dropped", "missed", "held"
MISSED_SHARE, DROPPED_SHARE, LEFT_SHARE = 0.1, 0.5, 0.05  # of the usual way of a carried thing
SHUT = 0.15  # of its range that a gripper closes farther on nothing than on a thing
LIFT_S = 0.3  # from a closed gripper to a lifted thing
AGREED, DOUBTFUL = 0.7, 0.6  # confidence, where text and attempts agree and where they do not


@dataclass(frozen=True)
class Swing:
    """One closing or opening of a gripper: from the last frame at rest before it to the first after it."""

    start: int
    end: int
    kind: str  # close | open


@dataclass(frozen=True)
class Attempt:
    """From a closing gripper to the opening one after it: what the arm moved while it was closed, and `after` that."""

    closed: int
    opening: int
    opened: int
    way: float
    after: float
    level: float  # of the gripper while it was closed, its range in the episode being 0..1
    holds_on: bool  # the gripper did not open again


def attempts(swings: Sequence[Swing], activity: np.ndarray, gripper: np.ndarray) -> list[Attempt]:
    """`activity` [n]: how fast the arm moves, `gripper` [n]: how far open it is; in any unit."""
    opening_of = (gripper - gripper.min()) / (np.ptp(gripper) or 1.0)
    n, found = len(activity), []
    moved = np.r_[0.0, np.cumsum(activity)]
    for i, a in enumerate(swings):
        if a.kind == "close":
            b = swings[i + 1] if i + 1 < len(swings) else None
            opening, opened = (n, n) if b is None else (max(b.start, a.end), b.end)
            following = swings[i + 2].start if i + 2 < len(swings) else n
            way, after = moved[opening] - moved[a.end], moved[max(following, opening)] - moved[opening]
            level = np.median(opening_of[a.end : max(opening, a.end + 1)])
            found.append(Attempt(a.end, opening, opened, float(way), float(after), float(level), b is None))
    return found


def outcomes(tries: Sequence[Attempt], num_moves: int, success: bool | None) -> list[str] | None:
    """What came of each attempt; None where text and attempts contradict each other."""
    if not tries or (success is not False and len(tries) < num_moves):
        return None
    order = sorted(range(len(tries)), key=lambda i: -tries[i].way)
    usual = float(np.median([tries[i].way for i in order[:num_moves]]))
    failed = set(order[num_moves:])
    if success is False:
        failed |= {i for i in order if tries[i].way < DROPPED_SHARE * usual}
        failed |= {i for i in order if not tries[i].holds_on and tries[i].after < LEFT_SHARE * usual}  # gave up
    found = []
    for i, t in enumerate(tries):
        if i in failed:
            again = next((x for k, x in enumerate(tries[i:], i) if k not in failed), None)  # with the same thing
            on_nothing = t.way < MISSED_SHARE * usual or (again is not None and t.level < again.level - SHUT)
            found.append(MISSED if on_nothing else DROPPED)
        else:  # a run that is taken as finished may end with the thing in the gripper, at its place
            found.append(HELD if t.holds_on and success is False else PLACED)
    if success is False and PLACED in found and found.count(PLACED) >= num_moves:
        found[len(found) - 1 - found[::-1].index(PLACED)] = DROPPED  # it ended unfinished, and nothing else was left
    return found


def carrying_steps(
    tries: Sequence[Attempt],
    ends: Sequence[str],
    moves: Sequence[Move],
    idle: Sequence[tuple[int, int]],
    n: int,
    fps: float,
    success: bool | None,
) -> tuple[list[Segment], int]:
    """Segments that tile the episode, and the number of planned steps: two for each thing."""
    confidence = AGREED if len(tries) == len(moves) and success is not False else DOUBTFUL
    spans: list[Segment] = []
    at, done = 0, 0

    def add(name: str, end: int, step: int | None, *, completed: bool, kind: str = STEP) -> None:
        nonlocal at
        end = min(end, n)
        if end > at:
            spans.append(Segment(name, at, end, kind, completed, step, confidence))
            at = end

    for t, outcome in zip(tries, ends, strict=True):
        if done == len(moves):
            break
        grasp, place = moves[done].steps()
        if outcome == MISSED:
            add(grasp, t.opening, 2 * done, completed=False)
            continue
        add(grasp, min(t.closed + round(LIFT_S * fps), t.opening, n - 1), 2 * done, completed=True)
        add(place, t.opened if outcome == PLACED else t.opening, 2 * done + 1, completed=outcome == PLACED)
        done += outcome == PLACED
    if at < n and done == len(moves) and success is not False:
        add("Done", n, None, completed=True, kind=DONE)
    elif at < n:
        rest = next((a for a, b in idle if b == n), n)
        if done < len(moves) and DROPPED in ends[-1:]:  # what was lost is to be grasped again
            add(moves[done].steps()[0], max(rest, at + 1), 2 * done, completed=False)
        elif done < len(moves) and rest - at >= fps and HELD not in ends:  # on its way to what it did not reach
            add(moves[done].steps()[0], rest, 2 * done, completed=False)
        add("Stand still", n, None, completed=False, kind=IDLE)
    return [part for s in spans for part in around_rest(s, idle, fps)], 2 * len(moves)


def around_rest(s: Segment, idle: Sequence[tuple[int, int]], fps: float) -> list[Segment]:
    """A step that stand-stills of at least half a second interrupt, in parts: only the last one completes it."""
    if s.kind != STEP:
        return [s]
    inside = [(max(a, s.start_frame), min(b, s.end_frame)) for a, b in idle]
    marks = sorted({s.start_frame, s.end_frame, *(x for a, b in inside if b - a >= fps / 2 for x in (a, b))})
    if len(marks) == 2:
        return [s]
    parts = []
    for a, b in pairwise(marks):
        if any(x <= a and b <= y for x, y in idle):
            parts.append(Segment("Stand still", a, b, IDLE, False, None, s.confidence))
        else:
            parts.append(Segment(s.name, a, b, STEP, s.completed and b == s.end_frame, s.step, s.confidence))
    if s.completed and parts[-1].kind == IDLE and len(parts) > 1:  # it was complete when the arm came to rest
        before = parts[-2]
        parts[-2] = Segment(before.name, before.start_frame, before.end_frame, STEP, True, s.step, s.confidence)
    return parts
