"""Moments at which an arm shows by itself that it goes on to another activity, and what they say of
a model's boundaries: where these lie off the moments by more than the pictures explain, they are
put there.

Chosen and measured on robots left out: docs/vlm.md.
"""

from collections.abc import Iterator, Sequence
from itertools import chain
from typing import NamedTuple

import numpy as np
import scipy  # loads its parts when they are used: most commands look for no peaks

from annotate.config import MotionConfig
from annotate.motion.observe import Signals, gripper_moves, moving_average, observe
from annotate.vlm.windows import Span, ascending_starts
from core.domain.label import DONE, IDLE

SLOW_WITHIN_S = 0.5  # an arm has its slowest moment only once within this time
SLOW_WINDOW_S = 0.3  # of the moving average of its speed
REACH_S = 0.9  # a moment that far from a boundary may be what the model saw
# A model that sees what pictures show is usually nearer to the moments than that
FAR_S = 0.4
FAR_OF_SLOW_S = 0.5
FAR = 0.65  # or than this share of the time between two pictures
# Kinds, those that count first at first
SHARP = (("comes_to_rest", "sets_out"), ("grips",))
SLOW = ("slow",)


class ArmMoments(NamedTuple):
    """Frames, ascending. grips: a gripper begins to close or to open. slow: slower than half of the speed around."""

    comes_to_rest: tuple[int, ...] = ()
    sets_out: tuple[int, ...] = ()
    grips: tuple[int, ...] = ()
    slow: tuple[int, ...] = ()


NO_MOMENTS = ArmMoments()


def moments_of(signals: Signals, config: MotionConfig) -> ArmMoments:
    """The moments of one episode by its signals alone."""
    observed = observe(signals, config)
    fps = signals.fps
    activity = moving_average(observed.activity, SLOW_WINDOW_S, fps)
    min_distance = max(1, round(SLOW_WITHIN_S * fps))
    slow, facts = scipy.signal.find_peaks(
        -activity, distance=min_distance, prominence=0.0, wlen=4 * min_distance + 1
    )
    moves = [gripper_moves(gripper.opening, config, fps) for gripper in signals.grippers]
    grips = {start for start, *_ in chain.from_iterable(moves)}
    return ArmMoments(
        comes_to_rest=tuple(start for start, _ in observed.idle if start > 0),
        sets_out=tuple(end for _, end in observed.idle if end < len(signals)),
        grips=tuple(sorted(grips)),
        slow=tuple(slow[activity[slow] < facts["prominences"]].tolist()),
    )


def settled_starts(
    spans: Sequence[Span], starts: Sequence[int], moments: ArmMoments, fps: float, num_frames: int
) -> list[int]:
    """The first frame of each span: at its moment, where the model's boundaries lie off these moments on the whole.

    A model that is as exact as its pictures keeps its boundaries: moments are not all true. Each
    moment is that of one boundary, sharp ones first, and of these the nearest.
    """
    by_kind = [
        [*_nearby_moments(spans, starts, moments, kinds, REACH_S * fps)] for kinds in (*SHARP, SLOW)
    ]
    sharp = [*chain.from_iterable(by_kind[:-1])]
    slow = by_kind[-1]
    between = float(np.mean([s.start - s.after for s in spans[1:]])) if len(spans) > 1 else 0.0
    limit = max((FAR_S if sharp else FAR_OF_SLOW_S) * fps, FAR * between)
    if not (sharp or slow) or _usual_distance(sharp or slow) <= limit:
        return list(starts)
    moment_of: dict[int, int] = {}
    for near in by_kind:
        for _, k, frame in sorted(near):
            is_free = k not in moment_of and frame not in moment_of.values()
            if is_free and all(
                (j < k) == (other_frame < frame) for j, other_frame in moment_of.items()
            ):
                moment_of[k] = frame
    return ascending_starts([moment_of.get(k, start) for k, start in enumerate(starts)], num_frames)


def _nearby_moments(
    spans: Sequence[Span],
    starts: Sequence[int],
    moments: ArmMoments,
    kinds: Sequence[str],
    reach: float,
) -> Iterator[tuple[int, int, int]]:
    """(distance, span that begins, frame) of each moment that a boundary may be, in frames."""
    for k in range(1, len(spans)):
        may_be = {
            "comes_to_rest": spans[k].label in (IDLE, DONE),
            "sets_out": spans[k - 1].label == IDLE,
        }
        for kind in kinds:
            for frame in getattr(moments, kind) if may_be.get(kind, True) else ():
                if abs(frame - starts[k]) <= reach:
                    yield abs(frame - starts[k]), k, frame


def _usual_distance(near: Sequence[tuple[int, int, int]]) -> float:
    """The median over moments of the frames to the nearest boundary."""
    nearest = {frame: distance for distance, _, frame in sorted(near, reverse=True)}
    return float(np.median([*nearest.values()]))
