"""Topics of a recording on one clock: when their messages were made, and rows and frames of them at its ticks."""

import math
import re
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property, partial
from itertools import groupby, islice
from operator import itemgetter
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa

from ingest.episode import (
    DECODE_ALL,
    DecodeOptions,
    FrameReader,
    FrameTimes,
    TimedPicture,
    VideoError,
)
from ingest.formats.bag_file import DEPTH, VIDEOS, Decoder, Kind, RawMessage, records
from ingest.formats.tables import numbers
from ingest.reasons import DataError, Limits
from ingest.sources.files import Source

PICTURES: tuple[Kind, ...] = ("compressed", "raw")
NO_CAMERA = re.compile(r"depth|disparity|infra|segment|mask|theora", re.I)
# Share of a topic's messages that may have the time of the one before: two drivers may speak of their joints at a time
MAX_SHARED_PICTURES = 0.1
MAX_SHARED_NUMBERS = 0.5
WAITING_CHUNKS = 8  # times limits.max_chunk_bytes: pictures that wait because they stand in the file before their turn
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


def _in_time(clock: str, times_ns: np.ndarray, numbers: np.ndarray) -> Stamps:
    """Times as a clock tells them, in the recorder's order, without late ones; those that are shared are not spread."""
    is_late = times_ns < np.maximum.accumulate(times_ns)
    ordered_ns = times_ns[~is_late]
    num_shared = int((np.diff(ordered_ns) == 0).sum())
    return Stamps(clock, ordered_ns, numbers[~is_late], int(is_late.sum()), num_shared)


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


@dataclass
class Topic:
    """A topic of a recording: when each of its messages was made, and the `stamps` of those that are used.

    format: how its pictures are encoded, in the words of its first message. skipped: messages of a
    video before its first key frame, which nothing decodes.
    """

    name: str
    kind: Kind
    type: str
    format: str = ""
    skipped: int = 0
    log_ns: list[int] = field(default_factory=list)
    publish_ns: list[int] = field(default_factory=list)
    header_ns: list[int | None] = field(default_factory=list)

    @cached_property
    def stamps(self) -> Stamps:
        """By the first of header, recorder and publisher by which messages are in order and have times of their own.
        Where none is such, by the one with most different times, spread. Headers that are missing or all zero tell
        none.
        """
        max_shared = MAX_SHARED_PICTURES if self.kind in PICTURES else MAX_SHARED_NUMBERS
        clocks: dict[str, Any] = {"recorder": self.log_ns, "publisher": self.publish_ns}
        if None not in self.header_ns and any(self.header_ns):
            clocks = {"header": self.header_ns} | clocks
        numbers = np.argsort(np.array(self.log_ns, np.int64), kind="stable")
        choices = [
            _in_time(clock, np.array(times, np.int64)[numbers], numbers)
            for clock, times in clocks.items()
        ]
        usable = [stamps for stamps in choices if stamps.num_late / len(numbers) <= MAX_LATE]
        for stamps in usable:
            if stamps.num_shared / len(numbers) <= max_shared:
                return stamps._replace(num_shared=0)
        least_shared = min(usable, key=lambda stamps: stamps.num_shared)
        return least_shared._replace(times_ns=_spread(least_shared.times_ns))

    @property
    def video(self) -> tuple[str, re.Pattern[bytes]] | None:
        """FFmpeg's decoder of pictures that are a video, and what a key frame holds."""
        return VIDEOS.get(self.format.lower())

    @property
    def depth(self) -> str:
        """What shows that its pictures are depth, or of another kind that is no colour; "" where nothing does."""
        if self.kind in PICTURES and (name := NO_CAMERA.search(self.name)):
            return f"its name says {name[0].lower()}"
        if self.kind in PICTURES and (format_ := DEPTH.search(self.format)):
            return f"its pictures are depth ({format_[0]})"
        return ""

    def fps(self) -> float:
        """Messages a second. Raises DataError."""
        rate = rate_of(self.stamps.times_ns)
        if rate is None:
            raise DataError(f"{self.name}: its pictures are all of one moment", "unsorted_stamps")
        return rate


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
        # All in nanoseconds, whole numbers
        return FrameTimes(stamps, 1).nearest(self.times_ns())

    def at_ticks(self, stamps: np.ndarray, values: np.ndarray) -> np.ndarray:
        """Of values [n] with times, in the file's order, the one nearest to each tick."""
        in_time = np.argsort(stamps, kind="stable")
        return values[in_time][self.nearest(stamps[in_time])]


def rows_of(
    source: Source, uris: Sequence[str], topics: Sequence[Topic], clock: Clock
) -> pa.Table | None:
    """Numbers at each tick; of a joint that only some of a topic's messages name, those. Raises DataError."""
    if not topics:
        return None
    # Times and values of each number by "topic name"
    series: dict[str, tuple[list[int], list[float]]] = {}
    times = {
        t.name: dict(zip(t.stamps.numbers.tolist(), t.stamps.times_ns.tolist(), strict=True))
        for t in topics
    }
    decoder = Decoder(source.config.limits)
    message_counts = Counter[str]()
    limits = source.config.limits
    for message in records(source, uris):
        if not isinstance(message, RawMessage) or (topic := message.topic) not in times:
            continue
        if (time := times[topic].get(message_counts[topic])) is not None:
            for name, value in decoder.numbers(message).items():
                stamps, values = series.setdefault(f"{topic} {name}", ([], []))
                stamps.append(time)
                values.append(value)
        message_counts[topic] += 1
        limits.check("max_features", len(series), f"{uris[0]}: joints")
    limits.check("max_values", len(series) * clock.ticks, f"{uris[0]}: numbers")
    # Which topic's first message came first differs from one recording to the next
    order = [*times]
    names = sorted(series, key=lambda name: order.index(name.partition(" ")[0]))
    columns = [clock.at_ticks(*map(np.array, series[name])) for name in names]
    return numbers(np.stack(columns, axis=1), _names(names))


def _names(series: Iterable[str]) -> list[str]:
    """Of "topic name" the name, or both where two topics have one of that name."""
    names = [name.partition(" ")[2] for name in series]
    if len({*names}) == len(names):
        return names
    return [name.replace(" ", "/").strip("/") for name in series]


def frames_of(
    source: Source, uris: Sequence[str], cameras: Mapping[str, Topic], clock: Clock
) -> FrameReader:
    def frames(camera: str, options: DecodeOptions = DECODE_ALL) -> Iterator[TimedPicture]:
        topic = cameras[camera]
        limits = source.config.limits
        description = f"{uris[0]}: pictures of {camera} before their turn"
        messages = (
            m for m in records(source, uris) if isinstance(m, RawMessage) and m.topic == topic.name
        )
        numbered = enumerate(islice(messages, topic.skipped, None))
        picture_numbers = topic.stamps.numbers[clock.nearest(topic.stamps.times_ns)].tolist()
        decoder = Decoder(limits)
        in_turn = partial(_in_turn, limits=limits, description=description)
        if topic.video is None:
            turns = in_turn(numbered, picture_numbers, lambda message: len(message.data))
            decoded = ((ticks, decoder.picture(message)) for ticks, message in turns)
        else:
            # A packet needs those before it, in order of time
            order = np.argsort(np.array(topic.log_ns, np.int64), kind="stable").tolist()
            turns = in_turn(numbered, order, lambda message: len(message.data))
            packets = ((order[places[0]], message) for places, message in turns)
            pictures = decoder.video(packets, topic.video[0])
            decoded = in_turn(
                pictures,
                picture_numbers,
                lambda frame: 2 * frame.picture.width * frame.picture.height,
            )
        for ticks, picture in decoded:
            yield from ((tick, tick / clock.fps, picture) for tick in ticks)

    return frames


def _in_turn[Item](
    items: Iterable[tuple[int, Item]],
    numbers_of_ticks: Sequence[int],
    num_bytes: Callable[[Item], int],
    limits: Limits,
    description: str,
) -> Iterator[tuple[list[int], Item]]:
    """The items that are wanted at each tick, by their numbers, with their ticks.

    One that comes before its turn waits. Raises DataError where too many do, and where one never comes.
    """
    turns = deque[tuple[int, list[int]]]()
    for number, group in groupby(enumerate(numbers_of_ticks), itemgetter(1)):
        turns.append((number, [tick for tick, _ in group]))
    needed = {*numbers_of_ticks}
    waiting = dict[int, Item]()
    waiting_bytes = 0
    for number, item in items:
        if number not in needed:
            continue
        waiting[number] = item
        waiting_bytes += num_bytes(item)
        limits.check("max_chunk_bytes", waiting_bytes, description, WAITING_CHUNKS)
        while turns and turns[0][0] in waiting:
            turn, ticks = turns.popleft()
            item = waiting.pop(turn)
            waiting_bytes -= num_bytes(item)
            yield ticks, item
        if not turns:
            return
    raise VideoError(f"{description}: message {turns[0][0]} gives none")
