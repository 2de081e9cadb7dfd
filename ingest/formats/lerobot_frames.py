"""Which picture of a video belongs to each row of a LeRobot episode.

By time, as LeRobot's own reader takes it: the picture that is shown
`from_timestamp + timestamp` into the file, which LeRobot allows to be a
ten-thousandth of a second off. Where times do not meet pictures so well, the
lengths of the episodes that share the file decide, then the number of pictures
before the next episode begins, then the nearest picture. Rows and pictures at
rates of their own, over the same time, are joined by time. What does not meet is
said, with its size.
"""

from collections.abc import Mapping
from math import ceil
from typing import NamedTuple

import numpy as np
import pyarrow as pa

from ingest.episode import Match
from ingest.formats.lerobot_meta import META_EPISODES
from ingest.formats.tables import opened
from ingest.media.video import FrameTimes
from ingest.sources.files import Source

TOLERANCE_S = 1e-4  # what LeRobot's reader allows
SAME_RATE = 0.1  # relative: rows and pictures whose rates differ by less are meant to come at one
ROUNDED_S = 1024.0  # from then on float32 times are farther from one another than LeRobot allows
CLAIMS = "lerobot_frames.claims"


def refused(start_s: float, row_times_s: np.ndarray, picture_times_s: np.ndarray) -> np.ndarray:
    """Which rows LeRobot refuses to show pictures for, bool [n], as it computes times: a row's, float32, is added to
    its episode's start in the file; the sum and the picture's time are rounded to float32, and compared."""
    asked_s = start_s + row_times_s.astype(np.float32).astype(np.float64)
    off_s = asked_s.astype(np.float32) - picture_times_s.astype(np.float32)
    return np.abs(off_s) >= np.float32(TOLERANCE_S)


def refusal(start_s: float, rows: range, fps: float) -> str:
    """How many rows LeRobot refuses although their pictures are at their times,
    and what helps, in words; empty: none.

    By metadata: `start_s`, where the episode begins in its file, and `rows`, its
    frames that have rows.
    """
    first = round(start_s * fps)
    end_s = start_s + rows.stop / fps
    # Of an episode that does not begin at a picture the finding is another one: how far times are off
    if end_s <= ROUNDED_S or abs(first / fps - start_s) >= TOLERANCE_S:
        return ""
    frames = np.arange(rows.start, rows.stop)
    num_refused = int(refused(start_s, frames / fps, (first + frames) / fps).sum())
    if not num_refused:
        return ""
    tolerance_s = ceil(1000 * float(np.spacing(np.float32(end_s)))) / 1000
    return (
        f"LeRobot rounds times to float32, and so refuses {num_refused} of {len(rows)} rows, more "
        f"than {ROUNDED_S:g} s into the file: LeRobotDataset(..., tolerance_s={tolerance_s:g}) "
        "opens them"
    )


class VideoSpan(NamedTuple):
    """Where an episode is in a video, as the metadata says; `start_s` counts as
    the file's own times do.

    `end_s`: where it ends, by itself; `next_s`: where the next episode of the
    file begins; infinite: not known, or the file's end. `is_shared`: may the file
    hold other episodes? `rows_before`, `length` and `total`: rows of the episodes
    before it in the file, its own, and of all; NaN where one is not known.
    `starts_s`: of all episodes of the file.
    """

    start_s: float = 0.0
    end_s: float = np.inf
    next_s: float = np.inf
    is_shared: bool = False
    rows_before: float = 0.0
    length: float = np.nan
    total: float = np.nan
    starts_s: np.ndarray | None = None


def match(video: FrameTimes, times_s: np.ndarray | None, num_rows: int, span: VideoSpan) -> Match:
    """The pictures of an episode's rows. `times_s`: those of the rows, float64
    [num_rows], or None.

    Of a file of its own that has too many or too few pictures, and other times
    than the rows: None, so that its length is found when it is decoded.
    """
    pair = _Pair(
        video,
        times_s if times_s is not None and np.isfinite(times_s).all() else None,
        num_rows,
        span,
    )
    if pair.meets_all():
        spare = 0 if span.is_shared else len(video.ticks) - num_rows
        doubt = f"{len(video.ticks)} frames, {num_rows} rows: each row has its own by time, {spare} frames have no row"
        return Match(pair.by_time, doubt if spare else "", "length_differs")
    first = pair.first_by_lengths()
    if first is not None:
        return pair.match_at(first + np.arange(num_rows), "by the lengths of the file's episodes")
    begin, count = pair.within_span()
    if count == num_rows:
        return pair.match_at(begin + np.arange(num_rows), "row by row")
    if pair.is_near():
        return pair.match_at(pair.by_time, "by the nearest time")
    if pair.is_of_another_rate():
        return pair.match_at(pair.by_time, pair.rates())
    if not span.is_shared:
        return Match(None)
    # Some rows have no picture of their own: those before the first of them are shown, and the length is a finding
    if times_s is None:
        return Match(begin + np.arange(min(count, num_rows)))
    is_there = pair.is_in_span & (pair.off_s <= pair.period_s / 2)
    return Match(pair.by_time[: num_rows if is_there.all() else int(is_there.argmin())])


class _Pair:
    """Rows and pictures beside each other."""

    def __init__(
        self, video: FrameTimes, times_s: np.ndarray | None, num_rows: int, span: VideoSpan
    ) -> None:
        self.picture_times_s = video.seconds
        self.num_rows = num_rows
        self.span = span
        self.period_s = video.period_s
        self.row_times_s = None if times_s is None else span.start_s + times_s
        self.start = int(video.nearest(np.array([span.start_s]))[0])
        self.is_even = _is_even(video, span)
        if self.row_times_s is not None:
            self.by_time = video.nearest(self.row_times_s)
            self.off_s = np.abs(self.picture_times_s[self.by_time] - self.row_times_s)
            if span.start_s < span.end_s <= span.next_s + self.period_s / 2:
                end_s = span.end_s
            else:
                end_s = span.next_s
            self.is_in_span = self.row_times_s < end_s - self.period_s / 2

    def meets_all(self) -> bool:
        """Does each row meet a picture, as LeRobot sees it?"""
        return self.is_even and self._is_within(TOLERANCE_S)

    def is_near(self) -> bool:
        """Is there a picture of its own at most half a frame from each row?"""
        return self._is_within(self.period_s / 2)

    def is_of_another_rate(self) -> bool:
        """Do rows and pictures come at rates of their own, from the same time to the same time?"""
        if self.row_times_s is None or self.num_rows < 2:
            return False
        steps_s = np.diff(self.row_times_s)
        ratio = float(np.median(steps_s)) / self.period_s
        if not (steps_s > 0).all() or not self.is_in_span.all() or abs(ratio - 1) < SAME_RATE:
            return False
        # The last row has to be at the last picture, too: else the times are of something else
        within_s = self.picture_times_s[self.picture_times_s < self.span.next_s - self.period_s / 2]
        if len(within_s) < 2:  # one picture has no rate
            return False
        longest_s = max(self.period_s, float(steps_s.max()))
        ends_s = abs(float(within_s[-1]) - float(self.row_times_s[-1]))
        return ends_s <= longest_s + TOLERANCE_S and float(self.off_s.max()) <= longest_s

    def rates(self) -> str:
        """How rows with times of another rate than the pictures' are matched, in words."""
        assert self.row_times_s is not None
        rows_s = float(np.median(np.diff(self.row_times_s)))
        return f"by the nearest time, since {1 / rows_s:.4g} rows and {1 / self.period_s:.4g} pictures come in a second"

    def _is_within(self, most_s: float) -> bool:
        if self.row_times_s is None:
            return False
        is_own = bool((np.diff(self.by_time) > 0).all() and self.is_in_span.all())
        return is_own and float(self.off_s.max(initial=0.0)) < most_s

    def first_by_lengths(self) -> int | None:
        """The first picture by the lengths of the episodes before it, where these are what the file holds."""
        span = self.span
        if span.total != len(self.picture_times_s) or span.length != self.num_rows:
            return None
        # A start that is exactly a picture's is believed before lengths
        if not self.is_even or self.start == span.rows_before:
            return int(span.rows_before)
        return None

    def within_span(self) -> tuple[int, int]:
        """The first picture from the start on, and how many there are until the
        next episode, or this one's end.

        A file of its own counts as a whole.
        """
        if not self.span.is_shared:
            return 0, len(self.picture_times_s)
        counts = [
            self._count(end_s)
            for end_s in (self.span.next_s, self.span.end_s)
            if end_s > self.span.start_s
        ]
        return self.start, self.num_rows if self.num_rows in counts else min(counts, default=0)

    def _count(self, end_s: float) -> int:
        end = np.searchsorted(self.picture_times_s, end_s - self.period_s / 2)
        return int(end) - self.start

    def match_at(self, places: np.ndarray, method: str) -> Match:
        """These pictures, and how far they are from the rows' times."""
        if self.row_times_s is None:
            return Match(places)
        off_s = np.abs(self.picture_times_s[places] - self.row_times_s)
        refused = int((self.off_s >= TOLERANCE_S).sum())
        num_other = int((self.by_time != places).sum())
        if not refused and not num_other:
            return Match(places)
        size = f"up to {off_s.max():.4f} s ({off_s.max() / self.period_s:.2f} frames)"
        reads = f"LeRobot refuses {refused} of {self.num_rows} rows"
        if num_other:
            reads += f" and would show another picture for {num_other}"
        return Match(
            places, f"pictures are {size} from their rows' times: matched {method}; {reads}"
        )


def _is_even(video: FrameTimes, span: VideoSpan) -> bool:
    """Does each episode of the file begin exactly at a picture? Else its starts drift, and none of them is believed."""
    if span.starts_s is None:
        return True
    starts_s = span.starts_s[span.starts_s <= video.seconds[-1]]
    off_s = np.abs(video.seconds[video.nearest(starts_s)] - starts_s)
    return bool((off_s < TOLERANCE_S).all())


# What the metadata of v3.0 says of each file


class _Claims(NamedTuple):
    """What the episodes say of one camera's files; arrays with one entry for each, NaN where it says nothing."""

    episode: np.ndarray
    length: np.ndarray
    file: np.ndarray  # chunk and file in one number
    start_s: np.ndarray
    end_s: np.ndarray


def span_of(source: Source, camera: str, episode_index: int, start_s: float) -> VideoSpan:
    """Where an episode of a v3.0 dataset is in its video; `start_s`: where the
    metadata does not say.

    Raises DataError where the metadata cannot be read any more.
    """
    claims = _claims(source, camera)
    entries = np.flatnonzero(claims.episode == episode_index)
    if not len(entries) or not np.isfinite(claims.start_s[entries[-1]]):
        return VideoSpan(start_s, is_shared=True)
    entry = entries[-1]
    is_in_file = claims.file == claims.file[entry]
    starts_s = claims.start_s[is_in_file]
    begin_s = claims.start_s[entry]
    lengths = claims.length[is_in_file]
    later_s = starts_s[starts_s > begin_s]
    return VideoSpan(
        float(begin_s),
        end_s=float(np.nan_to_num(claims.end_s[entry], nan=np.inf)),
        next_s=float(later_s.min(initial=np.inf)),
        is_shared=True,
        rows_before=float(lengths[starts_s < begin_s].sum()),
        length=float(claims.length[entry]),
        # Episodes that begin at one time are not in an order
        total=float(lengths.sum()) if len(np.unique(starts_s)) == len(starts_s) else np.nan,
        starts_s=starts_s,
    )


def _claims(source: Source, camera: str) -> _Claims:
    claims_by_camera: dict[str, _Claims] = source.noted.setdefault(CLAIMS, {})
    if camera not in claims_by_camera:
        prefix = f"videos/{camera}/"
        names = ["episode_index", "length"]
        names += [
            prefix + name
            for name in ("chunk_index", "file_index", "from_timestamp", "to_timestamp")
        ]
        tables = [_read(source, uri, names) for uri in source.files if META_EPISODES.match(uri)]
        columns = []
        for name in names:
            parts = [table[name] for table in tables]
            columns.append(np.concatenate(parts or [np.zeros(0)]))
        episode, length, chunk, file, start_s, end_s = columns
        claims_by_camera[camera] = _Claims(episode, length, chunk * 2**32 + file, start_s, end_s)
    return claims_by_camera[camera]


def _read(source: Source, uri: str, names: list[str]) -> Mapping[str, np.ndarray]:
    """Columns of numbers, float64; NaN for nulls, and for all of a column that has no numbers. Raises DataError."""
    with opened(source.resolve(uri)) as file:
        count = file.metadata.num_rows
        schema = file.schema_arrow
        source.config.limits.check("max_rows", count, f"{uri}: rows")
        present_names = [
            name
            for name in names
            if schema.names.count(name) == 1 and _is_number(schema.field(name).type)
        ]
        table = file.read(present_names, use_threads=False)
    columns: dict[str, np.ndarray] = dict.fromkeys(names, np.full(count, np.nan))
    for name in present_names:
        columns[name] = np.asarray(table[name].to_numpy(), np.float64)
    return columns


def _is_number(type_: pa.DataType) -> bool:
    return pa.types.is_integer(type_) or pa.types.is_floating(type_)
