"""One comparer of all that is measured of runs, and the one table of the limits that it goes by."""

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from types import MappingProxyType
from typing import Any, NamedTuple, Protocol

from core.values import grouped
from ingest.episode import Finding

MAX_IN_WORDS = 3  # stretches of one check that a finding names; all of them are in the table
COLUMNS = ("episode_index", "signal", "start_frame", "end_frame", "measured", "usual", "unit")


class MeasuredRun(Protocol):
    """What a finding has to know of a run; its length is in frames."""

    @property
    def episode_index(self) -> int: ...

    @property
    def fps(self) -> float: ...

    def __len__(self) -> int: ...


class Limit(NamedTuple):
    """From where on a measured number is a fault, and how it is said.

    The number is at least `minimum`, which is physics or of no account, `times` the usual one, and `margin` above it.
    sentence: with the measurement's fields and words, and `start_s`. unit: of what is measured and usual.
    """

    sentence: str
    unit: str
    minimum: float = 0.0
    times: float = 0.0
    margin: float = -math.inf


JUMP = "{camera}: {kind} at frame {start}, by {measured:.2f}; else it changes by up to {usual:.2f} from frame to frame"
AGAINST = (
    "{signal} moves against its action (correlation {measured:.2f}), elsewhere with it "
    "({usual:.2f}): another sign?"
)
# By code, and what tells several measures of one code apart
LIMITS = {
    "camera_black": Limit(
        "{camera} is black for {measured:.1f} s from {start_s:.1f} s on",
        "s",
        minimum=0.5,
    ),
    "camera_frozen": Limit(
        "{camera} shows one picture for {measured:.1f} s from {start_s:.1f} s on, while {witness}",
        "s",
        minimum=1.5,
    ),
    # Wrist cameras of real sets leap by up to 0.10 of light in a frame; one that moves by up to 0.15 of sharpness
    "camera_jumps": Limit(JUMP, "of luma", minimum=0.03, times=4.0),
    "camera_jumps light": Limit(JUMP, "of luma", minimum=0.12, times=4.0),
    "camera_jumps sharpness": Limit(JUMP, "logarithm", minimum=0.2, times=2.5),
    "camera_moved": Limit(
        "what {camera} shows at rest is {measured:.0f} of 255 from the runs that are most alike; others are within "
        "{usual:.0f}",
        "of 255",
        minimum=6.0,
        times=2.0,
    ),
    "rows_late": Limit(
        "the rows are {lag} the pictures, those of the other runs {usual_lag} them",
        "frames",
        minimum=2,
    ),
    "rows_late in all": Limit(
        "the rows are {usual_lag} the pictures in {num_runs} of {num_all} runs",
        "frames",
        minimum=2,
    ),
    "state_jumps": Limit(
        "{signal}{others} jumps by {measured:.3g} at frame {start} and is back {length} frame(s) later; the largest "
        "other step is {usual:.3g}",
        "of the source",
        times=4.0,
    ),
    "state_stuck": Limit(
        "the state keeps one value for {measured:.1f} s from {start_s:.1f} s on, while {witness}",
        "s",
        minimum=1.0,
    ),
    "frames_missing": Limit(
        "{measured} frames are missing at {num_places} places by the rows' times, the longest {longest_s:.2g} s "
        "before row {longest_row}",
        "frames",
        minimum=5,
    ),
    "idle_end": Limit(
        "nothing moves in the {side} {measured:.1f} s; in {others} {usual:.1f} s",
        "s",
        minimum=3.0,
        times=2.0,
        margin=2.0,
    ),
    # Of these the share of the other runs that have what this one lacks
    "gripper_stays": Limit(
        "the {signal} does not close; in {others} it closes {usual:g} times",
        "closings",
        minimum=0.8,
    ),
    "dead_dimension": Limit(
        "{signal} is {value:.4g} in all frames; {others} move it by {usual:.3g}",
        "of the source",
        minimum=0.9,
    ),
    "action_clipped": Limit(
        "{signal} stays at {measured:.3g} in {share:.0f} % of the frames; {others} go up to {usual:.3g}",
        "of the source",
        minimum=0.7,
    ),
    # The logarithm of a factor: less than 6 is another way of doing it
    "other_scale": Limit(
        "{signal} moves {measured:.3g} times as far as in {others}: another unit?",
        "times",
        minimum=math.log(6.0),
    ),
    # A share of the dimension's range
    "other_scale offset": Limit(
        "the action is {measured:.3g} above {signal} at the median, in {others} {usual:.3g}: a calibration?",
        "of the source",
        minimum=0.08,
    ),
    # Correlations of a joint with its action, below 0
    "other_scale sign": Limit(AGAINST, "correlation", minimum=0.55),
    "other_scale sign in all": Limit(AGAINST, "correlation", minimum=0.6),
    "copy": Limit("a copy of episode {other[1]}: {kind}", "standard deviations"),
    "other_pictures": Limit(
        "its pictures are those of episode {other[1]}, its rows are others "
        "(likeness of pictures and rows {measured:.2f}, of the other run {usual:.2f})",
        "correlation",
        minimum=0.1,
    ),
    # How much nearer the runs of the other text are
    "text_differs": Limit(
        'the run looks and moves like those of "{nearest}", not like those of its text "{text}"',
        "ratio of distances",
        minimum=1.25,
    ),
    "outcome_differs": Limit(
        "it is said to have succeeded, and its last picture is {measured:.1f} of 255 from the others' "
        "ends, {earlier:.1f} from what they show earlier; others are within {usual:.1f} of an end",
        "of 255",
        times=1.5,
    ),
    # Shares of what rounding and sums in float32 may make of them
    "stale_statistics": Limit(
        "{file} says that the {kind} of {signal} is {usual:.4g}; by the rows it is {measured:.4g}",
        "of the source",
        minimum=1.0,
    ),
    "stale_statistics width": Limit(
        "{file} has {usual} dimensions of {signal}, the rows {measured}", "of the source"
    ),
    "stale_statistics unread": Limit(
        "whether the stored statistics are the data's cannot be told: {problem}", "of the source"
    ),
}


class Measurement(NamedTuple):
    """A number that was measured of a run, or of a stretch of it, and goes by a row of LIMITS.

    usual: the same elsewhere in the run, or in other runs; None: there is none but the limit. stretch: half-open; None:
    all frames. size: what is held against the limit, where it is not `measured` itself. words: of the sentence.
    """

    limit: str
    run: MeasuredRun
    measured: float
    usual: float | None = None
    stretch: tuple[int, int] | None = None
    camera: str | None = None
    signal: str = ""
    size: float | None = None
    other: tuple[str, int] | None = None
    words: Mapping[str, Any] = MappingProxyType({})


def duration(
    limit: str, run: MeasuredRun, stretch: tuple[int, int], camera: str | None = None, **about: Any
) -> Measurement:
    """How long a stretch is, in seconds; half a frame less is as good as the limit."""
    frames = stretch[1] - stretch[0]
    size = (frames + 0.5) / run.fps
    return Measurement(limit, run, frames / run.fps, None, stretch, camera, size=size, **about)


def num_frames(seconds: float, fps: float) -> int:
    """The frames of a time, at least two."""
    return max(2, round(seconds * fps))


def faults(measurements: Iterable[Measurement]) -> Iterator[Finding]:
    """A warning for each measurement that is beyond its limit."""
    for measurement in measurements:
        limit = LIMITS[measurement.limit]
        usual = limit.minimum if measurement.usual is None else measurement.usual
        size = measurement.measured if measurement.size is None else measurement.size
        if size >= max(limit.minimum, limit.times * usual, usual + limit.margin):
            yield _fault(measurement, limit, usual)


def _fault(measurement: Measurement, limit: Limit, usual: float) -> Finding:
    run = measurement.run
    start, end = measurement.stretch or (0, len(run))
    facts = measurement._asdict() | {"usual": usual, "start": start, "start_s": start / run.fps}
    return Finding(
        measurement.limit.split()[0],
        limit.sentence.format(**facts, **measurement.words),
        "warning",
        run.episode_index,
        measurement.camera,
        None,
        measurement.signal,
        start,
        end,
        measurement.measured,
        usual,
        limit.unit,
        measurement.other,
    )


def fault_row(fault: Finding) -> dict[str, Any]:
    """The fault as columns of the table `run_checks` (without dataset and chunk)."""
    other_dataset, other_episode = fault.other or (None, None)
    return {name: getattr(fault, name) for name in COLUMNS} | {
        "check_name": fault.reason,
        "detail": fault.detail,
        "camera": fault.camera or "",
        "other_dataset": other_dataset,
        "other_episode": other_episode,
    }


def joined_faults(faults: Sequence[Finding]) -> list[Finding]:
    """A warning for each check, run and camera that has faults; it names the longest stretches in order of time."""
    groups = grouped(((f.reason, f.episode_index, f.camera), f) for f in faults)
    return [_joined(group) for group in groups.values()]


def _joined(group: Sequence[Finding]) -> Finding:
    longest = sorted(group, key=lambda fault: fault.start_frame - fault.end_frame)[:MAX_IN_WORDS]
    details = [fault.detail for fault in sorted(longest, key=lambda fault: fault.start_frame)]
    if len(group) > MAX_IN_WORDS:
        details.append(f"and {len(group) - MAX_IN_WORDS} more")
    return replace(group[0], detail="; ".join(details))
