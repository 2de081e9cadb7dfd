"""When messages of an MCAP topic were made, and one clock for the topics of a recording."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

MAX_LATE = 0.1  # share of a topic's messages that may be out of order


class Stamps(NamedTuple):
    """Times of a topic's messages in order, without messages that are older than one that was recorded before them.

    `clock`: what tells the times (header, recorder or publisher). `times_ns`: int64 [n]. `numbers`:
    int64 [n], those of the messages in the file, whose order may be another. `num_late`: how many
    are left out. `num_shared`: how many had the time of the one before, and were spread from the
    time before theirs up to it.
    """

    clock: str
    times_ns: np.ndarray
    numbers: np.ndarray
    num_late: int
    num_shared: int


def stamps_of(
    recorder_ns: Sequence[int],
    publisher_ns: Sequence[int],
    header_ns: Sequence[int | None],
    max_shared: float,
) -> Stamps:
    """The first of header, recorder and publisher by which messages are in order and have times of
    their own: at most a share of `max_shared` has the time of the one before. Where none is such,
    the one with most different times, spread.
    """
    numbers = np.argsort(np.array(recorder_ns, np.int64), kind="stable")
    clocks = _clocks(recorder_ns, publisher_ns, header_ns)
    choices = [_in_time(clock, times[numbers], numbers) for clock, times in clocks.items()]
    usable = [stamps for stamps in choices if stamps.num_late / len(numbers) <= MAX_LATE]
    for stamps in usable:
        if stamps.num_shared / len(numbers) <= max_shared:
            return stamps._replace(num_shared=0)
    least_shared = min(usable, key=lambda stamps: stamps.num_shared)
    return least_shared._replace(times_ns=_spread(least_shared.times_ns))


def _in_time(clock: str, times_ns: np.ndarray, numbers: np.ndarray) -> Stamps:
    """Times as a clock tells them, in the recorder's order, without late ones; those that are shared are not spread."""
    is_late = times_ns < np.maximum.accumulate(times_ns)
    ordered_ns = times_ns[~is_late]
    num_shared = int((np.diff(ordered_ns) == 0).sum())
    return Stamps(clock, ordered_ns, numbers[~is_late], int(is_late.sum()), num_shared)


def _clocks(
    recorder_ns: Sequence[int], publisher_ns: Sequence[int], header_ns: Sequence[int | None]
) -> dict[str, np.ndarray]:
    """Times of all messages, int64 [n], by those who tell them; headers that are missing or all zero tell none."""
    clocks = {
        "recorder": np.array(recorder_ns, np.int64),
        "publisher": np.array(publisher_ns, np.int64),
    }
    headers = np.array([stamp or 0 for stamp in header_ns], np.int64)
    has_headers = None not in header_ns and bool(headers.any())
    if has_headers:
        return {"header": headers} | clocks
    return clocks


def _spread(ordered: np.ndarray) -> np.ndarray:
    """Times of messages that were written down together, evenly from the time before theirs up to it, int64 [n].

    Those of the first time go as far back as they do forward from it.
    Example: _spread([4, 4, 8, 8]) is [2, 4, 6, 8].
    """
    moments, counts = np.unique(ordered, return_counts=True)
    if len(moments) == 1:
        return ordered
    steps = np.diff(moments, prepend=2 * moments[0] - moments[1])
    # Of k messages of a moment, the j-th lies k - 1 - j parts before it
    behind = np.concatenate([np.arange(count)[::-1] for count in counts])
    return ordered - np.round(behind * np.repeat(steps / counts, counts)).astype(np.int64)


def rate_of(ordered: np.ndarray) -> float | None:
    """Messages a second, of times [n] in nanoseconds; None where all are of one moment.

    Each step counts for the whole number of median steps that it is nearest to, so that neither
    jitter nor a gap moves the rate.
    """
    steps = np.diff(ordered)
    if not steps.any():
        return None
    count = int(np.round(steps / np.median(steps[steps > 0])).sum())
    return round(count * 1e9 / float(ordered[-1] - ordered[0]), 3)


@dataclass(frozen=True)
class Clock:
    """Ticks that frames are made at: `start_ns`, then `fps` a second."""

    start_ns: int
    fps: float
    ticks: int

    @classmethod
    def within(cls, begin_ns: int, end_ns: int, pictures_ns: np.ndarray, fps: float) -> "Clock":
        """From the first picture to the end; either may be half a picture or tick outside, so
        jitter loses no frame.

        Ticks fall on pictures, so that jitter moves none to its neighbour's tick.
        """
        slack_s = 0.5 / max(fps, rate_of(pictures_ns) or 0.0)
        included_ns = pictures_ns[
            (pictures_ns > begin_ns - slack_s * 1e9) & (pictures_ns <= end_ns)
        ]
        start_ns = int(included_ns[0]) if len(included_ns) else begin_ns
        # The last tick lies before the end and its slack
        return cls(start_ns, fps, max(1, math.ceil(((end_ns - start_ns) / 1e9 + slack_s) * fps)))

    def times_ns(self) -> np.ndarray:
        """int64 [ticks]"""
        return self.start_ns + np.round(np.arange(self.ticks) * (1e9 / self.fps)).astype(np.int64)

    def nearest(self, stamps: np.ndarray) -> np.ndarray:
        """Of ordered stamps [n], the place of the one nearest to each tick, int64 [ticks]; of two the earlier."""
        times = self.times_ns()
        next_index = np.clip(np.searchsorted(stamps, times), 0, len(stamps) - 1)
        previous_index = np.maximum(next_index - 1, 0)
        return np.where(
            np.abs(times - stamps[previous_index]) <= np.abs(stamps[next_index] - times),
            previous_index,
            next_index,
        )
