"""One comparer of all that is measured of runs; limits.toml has what it goes by."""

import math
import tomllib
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from types import MappingProxyType, SimpleNamespace
from typing import Any, NamedTuple, Protocol

from ingest.episode import Finding


class MeasuredRun(Protocol):
    """What a finding has to know of a run; its length is in frames."""

    @property
    def episode_index(self) -> int: ...

    @property
    def fps(self) -> float: ...

    def __len__(self) -> int: ...


class Limit(SimpleNamespace):
    """A table of limits.toml, whose head says what each field is."""

    minimum = 0.0
    times = 0.0
    margin = -math.inf


LIMITS = {
    name: Limit(**fields)
    for name, fields in tomllib.loads(Path(__file__).with_name("limits.toml").read_text()).items()
}


class Measurement(NamedTuple):
    """A number that was measured of a run, or of a stretch of it, and goes by a row of LIMITS.

    usual: the same elsewhere in the run, or in other runs; None: there is
    none but the limit. stretch: half-open; None: all frames. size: what is
    held against the limit, where it is not `measured` itself. words: of the
    sentence.
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
