"""Results of an adapter: episode records, findings, and an episode's data.

`episode_index` counts episodes of one dataset: as the source does, until `with_numbers` gives each record the number
of its recording. Row k of an episode belongs to frame k of every camera.

Pictures as their readers know them: how they are asked for, and what may be wrong with them. A frame index counts
decoded frames of one episode from 0. Pictures are uint8: luma [h, w], RGB [h, w, 3].

A reader records every column, array, topic, picture stream, file and text that it comes upon, in a `PartCensus`. What
carries data and is used for nothing is a finding, so that "No findings" means that all of it was understood.
"""

import sys
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import islice
from typing import Any, Literal, NamedTuple, NoReturn, Protocol

import numpy as np
import pyarrow as pa

from core.domain.label import EpisodeFrame
from core.values import grouped
from ingest.reasons import LIMITS, REASONS, DataError, Limits

CAMERA_RATE_TOLERANCE = 0.01  # relative, between cameras of one episode
VIDEO_SUFFIXES = (".mp4", ".mkv", ".webm", ".mov", ".avi")


class VideoError(DataError):
    """A video or a picture that cannot be decoded."""

    def __init__(self, message: str, reason: str = "undecodable_video") -> None:
        super().__init__(message, reason)


@dataclass(frozen=True)
class Planes:
    """A picture as videos hold it: luma [h, w], and two colour differences of half its width and
    height, rounded up.

    uint8, and views of the decoder's buffers: do not keep them. is_full_range: 0..255 is used, not
    16..235 and 16..240.
    """

    y: np.ndarray
    u: np.ndarray
    v: np.ndarray
    is_full_range: bool


class Picture(Protocol):
    """One frame, converted only as far as it is asked for."""

    def luma(self) -> np.ndarray: ...
    def rgb(self) -> np.ndarray: ...
    def planes(self) -> Planes | None:
        """None for a picture that is held in another way."""
        ...

    @property
    def is_damaged(self) -> bool: ...
    @property
    def is_key(self) -> bool:
        """Does it decode by itself?"""
        ...


class SkippedFrame:
    """A frame that was not asked for and not decoded, in the place of its picture."""

    is_damaged = is_key = False

    def luma(self) -> NoReturn:
        raise ValueError("this frame was not asked for")

    rgb = planes = luma


SKIPPED = SkippedFrame()


@dataclass(frozen=True)
class DecodeOptions:
    """How a video is decoded.

    `threads`: of the decoder; the frames are the same with any number. `limits`: those of the
    video's dataset. `wanted`: the frames that are needed; None: all. Groups of pictures that hold
    none of them are not decoded, and SkippedFrame stands for each of their frames. Decoding then
    raises VideoError where groups cannot be told apart, or do not decode by themselves.
    """

    threads: int = 1
    wanted: frozenset[int] | None = None
    limits: Limits = LIMITS


DECODE_ALL = DecodeOptions()


@dataclass(frozen=True, eq=False)
class FrameTimes:
    """When each picture of a file is shown, in this order. `ticks`: int64 [n], of `tick_s` seconds each. Of the packet
    of each picture, `order`: its place in the file, int64 [n]; `is_key`: does it need no other, bool [n]?"""

    ticks: np.ndarray
    tick_s: float
    order: np.ndarray = field(default_factory=lambda: np.zeros(0, np.int64))
    is_key: np.ndarray = field(default_factory=lambda: np.zeros(0, bool))

    @cached_property
    def seconds(self) -> np.ndarray:
        """float64 [n]"""
        return self.ticks * self.tick_s

    @cached_property
    def period_s(self) -> float:
        """From a picture to the next one, usually; 1 for a single picture."""
        return float(np.median(np.diff(self.seconds))) if len(self.ticks) > 1 else 1.0

    def nearest(self, times_s: np.ndarray) -> np.ndarray:
        """The picture that is shown nearest to each time, int64 [n]; of two that are equally near the first."""
        shown_s = self.seconds
        next_index = np.searchsorted(shown_s, times_s).clip(max=len(shown_s) - 1)
        previous_index = np.maximum(next_index - 1, 0)
        is_before = np.abs(times_s - shown_s[previous_index]) <= np.abs(
            shown_s[next_index] - times_s
        )
        return np.where(is_before, previous_index, next_index)


MAX_DETAILS = 20  # of one thing, in one finding
MAX_STRETCHES = 3  # of one check, the longest; all of them are in the table
SEVERITIES = ("unusable", "warning", "error", "passed")
MEASURED = ("signal", "start_frame", "end_frame", "measured", "usual", "unit", "detail")


@dataclass(frozen=True)
class Finding:
    """Something about a dataset, an episode or a camera, of a code of REASONS, in a sentence.

    A check of tables gives one, too, under the check's name, and so does the doctor about a workspace. Then `remedy`
    says what to do, `numbers` has what was measured, and `mend` what a repair goes by. severity: unusable or warning,
    as the table findings has them; error and passed are of checks. file: the place, also a folder or an address.

    start_frame, end_frame: the stretch that it is about, half-open; empty where it is about none. measured, usual: in
    `unit`, of the values called `signal`; `usual` is that of the other runs of its task, or a limit. other: dataset and
    episode of another run that it is about, such as the one that it is a copy of. stretches: of one that says what
    several do, those that checks measured.
    """

    reason: str
    detail: str
    severity: str = "unusable"
    episode_index: int | None = None
    camera: str | None = None
    file: str | None = None
    signal: str = ""
    start_frame: int = 0
    end_frame: int = 0
    measured: float = 0.0
    usual: float = 0.0
    unit: str = ""
    other: tuple[str, int] | None = None
    stretches: Sequence[dict[str, Any]] = ()
    remedy: str = ""
    numbers: Mapping[str, float] = field(default_factory=dict, hash=False)
    mend: Any = None

    @property
    def data_fields(self) -> dict[str, Any]:
        """All fields but those that checks and the doctor alone fill."""
        check_fields = ("remedy", "numbers", "mend")
        return {name: value for name, value in vars(self).items() if name not in check_fields}

    @property
    def passed(self) -> bool:
        return self.severity == "passed"

    @property
    def detail_of_file(self) -> str:
        return f"{self.file} {self.detail}" if self.file else self.detail

    @property
    def stretch(self) -> dict[str, Any]:
        """What a check measured, as in the table findings."""
        dataset, episode = self.other or (None, None)
        partner = {"other_dataset": dataset, "other_episode": episode}
        return {name: getattr(self, name) for name in MEASURED} | partner

    def __post_init__(self) -> None:
        # A check, and the doctor, say themselves what to do
        is_of_data = self.severity in SEVERITIES[:2] and not self.remedy
        if (is_of_data and self.reason not in REASONS) or self.severity not in SEVERITIES:
            raise ValueError(f"unknown finding {self.reason!r} / {self.severity!r}")


def joined_findings(findings: Iterable[Finding]) -> list[Finding]:
    """One of each episode, camera and code, with all sentences and stretches, and the worst severity."""
    groups = grouped(((f.episode_index, f.camera, f.reason), f) for f in findings)
    return [_joined(group) for group in groups.values()]


def _joined(findings: Sequence[Finding]) -> Finding:
    # With its file, where they are of several
    is_of_one = len({f.file for f in findings}) == 1
    starts = dict[str, int]()
    for f in sorted(findings, key=lambda f: f.start_frame - f.end_frame):
        text = f.detail if is_of_one else f.detail_of_file
        starts.setdefault(text, f.start_frame)
    stretches = [f.stretch for f in findings if f.unit]
    limit = MAX_STRETCHES if stretches else MAX_DETAILS
    details = sorted([*starts][:limit], key=starts.__getitem__)
    if len(starts) > limit:
        details.append(f"and {len(starts) - limit} more")
    severity = min(f.severity for f in findings)  # by the alphabet the worst comes first
    detail = "; ".join(details)
    return replace(findings[0], detail=detail, severity=severity, stretches=stretches)


@dataclass(frozen=True)
class CameraVideo:
    camera: str
    uri: str  # relative to the source
    start_frame: int  # where the episode begins in the file


@dataclass(frozen=True)
class NativeStep:
    """A subtask span that the source itself gives, in frames; half-open.

    Few sources say more: `kind` (step, idle or done), whether it was `completed`, which planned
    `step` it is an attempt at, `confidence` 0..1 and `notes`, all as of a segment. None: the source
    does not say.
    """

    name: str
    start_frame: int
    end_frame: int
    kind: str | None = None
    completed: bool | None = None
    step: int | None = None
    confidence: float | None = None
    notes: str | None = None


@dataclass(frozen=True)
class EpisodeRecord:
    """One episode as its source lists it; nothing was decoded. Other than `Episode` it says where its data is to read.

    `source_id` is its address, and does not depend on what else the source holds; `source_index` its
    number there, where that is another one than `episode_index`.
    `data_uri` with `data_key` (a group, a byte offset, as the format has it) and `row_start` say
    where its rows are. `steps_from` is the form that `steps` were read from, `plan` the names of
    the planned steps where spans may be attempts at the same one. `as_far_as`: a failed run came as
    far as another one was at that frame.
    """

    episode_index: int
    source_id: str
    fps: float
    task: str | None
    tasks: tuple[str, ...] = ()
    num_rows: int | None = None
    data_uri: str | None = None
    data_key: str = ""
    row_start: int = 0
    videos: tuple[CameraVideo, ...] = ()
    steps: tuple[NativeStep, ...] = ()
    steps_from: str | None = None
    plan: tuple[str, ...] = ()
    as_far_as: EpisodeFrame | None = None
    success: bool | None = None
    success_source: str | None = None  # what says so; see ingest/outcomes.py
    group: str = ""
    source_stamp: str = ""
    source_index: int | None = None

    @property
    def number_in_source(self) -> int:
        return self.episode_index if self.source_index is None else self.source_index

    @property
    def cameras(self) -> list[str]:
        return [v.camera for v in self.videos]


PartKind = Literal["array", "camera", "column", "file", "text", "topic"]


@dataclass(frozen=True)
class SourcePart:
    """One thing that a source holds, and what it is used for.

    `name`: its path in an episode, or in the dataset, as people find it there. `status`: used, as
    `use`; known, and left out on purpose; or unknown, and used for nothing. `why` says what shows
    that, or why not. `shape`: that of one episode, None for a dimension that differs. `file`: the
    first that has it. `num_times`: in how many episodes or files.
    """

    kind: PartKind
    name: str
    status: Literal["used", "known", "unknown"]
    use: str
    why: str
    shape: tuple[int | None, ...] = ()
    dtype: str = ""
    file: str | None = None
    num_times: int = 1


@dataclass(frozen=True)
class Listing:
    """A dataset's facts, its episodes in order of episode_index, and what is wrong with them.

    `numbered`: the source has episode indices of its own. Else they count records in order of
    source_id. `never_set`: columns that could tell success, and are 0 in every row of every
    episode. `parts`: what the source holds, and what is used of it.
    """

    format: str
    fps: float | None
    robot: str | None
    cameras: tuple[str, ...]
    records: tuple[EpisodeRecord, ...]
    findings: tuple[Finding, ...]
    numbered: bool = True
    never_set: tuple[str, ...] = ()
    parts: tuple[SourcePart, ...] = ()


TimedPicture = tuple[int, float, Picture]  # frame_index, timestamp_s, frame


class FrameReader(Protocol):
    """Frames of one camera, streaming. Raises VideoError; also DataError where pictures are stored in rows."""

    def __call__(
        self, camera: str, options: DecodeOptions = DECODE_ALL, /
    ) -> Iterator[TimedPicture]: ...


class Match(NamedTuple):
    """The picture of each row in its video, counted in the order in which the file shows them.

    `places`: int64 [n], fewer than rows where pictures lack; None: those of the whole file, one
    after the other. `doubt`: how far the times of rows and pictures are apart, or how many pictures
    have no row, in words; its code is `reason`. Empty: each picture meets its row.
    """

    places: np.ndarray | None = None
    doubt: str = ""
    reason: str = "timestamp_drift"


def timed(pictures: Iterable[Picture], fps: float) -> Iterator[TimedPicture]:
    """Frames with their index and the time of their row."""
    for k, picture in enumerate(pictures):
        yield k, k / fps, picture


class StoredStatistics(NamedTuple):
    """What a source states of the values of state or action (`vector`), arrays [d]: of one episode, or of all rows.

    file: where it stands. problem: why a file could not be read; nothing else is known then.
    """

    vector: str = ""
    file: str = ""
    low: np.ndarray = np.zeros(0)
    high: np.ndarray = np.zeros(0)
    mean: np.ndarray = np.zeros(0)
    spread: np.ndarray = np.zeros(0)
    is_of_episode: bool = False
    problem: str = ""


@dataclass(frozen=True)
class EpisodeData:
    """Low-dimensional rows of one episode, and a frame iterator per camera: its content, where `Episode` has its facts.

    `states` and `actions` have one row per frame and one column of float64 per dimension, in the
    source's units, grippers and hands among them (`ingest.signals` knows where); None when the
    source has none, or the format's reader does not read it. `names_by` says where the names are
    from. `match` gives the pictures of a camera's video file. Options of `frames` count for cameras
    that are video files; pictures in rows or arrays are all decoded. `statistics`: what the source
    states of the values of its rows, as far as they are compared with them.
    """

    record: EpisodeRecord
    states: pa.Table | None
    actions: pa.Table | None
    timestamps_s: np.ndarray | None
    frames: FrameReader = field(repr=False)
    names_by: Literal["name", "modality.json"] = "name"
    match: Callable[[str], Match] = lambda camera: Match()
    statistics: Sequence[StoredStatistics] = ()
    # Whose convention gives dimensions their names, where the source itself does not
    writer: str = ""

    @cached_property
    def state(self) -> np.ndarray | None:
        """float64 [n, d]"""
        if self.states is None:
            return None
        return matrix(self.states)

    @cached_property
    def action(self) -> np.ndarray | None:
        """float64 [n, d]"""
        if self.actions is None:
            return None
        return matrix(self.actions)

    def decoded(self, camera: str, frame_indices: Collection[int]) -> Iterator[tuple[int, Picture]]:
        """Pictures of a camera with their frames, up to the last of `frame_indices`: these, and what they need.

        Groups of pictures that hold none of them are not decoded, where the video's groups stand by
        themselves. On one thread, so that a damaged video gives the same pictures each time. Raises
        as `frames`.
        """
        last = max(frame_indices)
        last_frame = -1
        with suppress(VideoError):
            groups = self.frames(camera, DecodeOptions(wanted=frozenset(frame_indices)))
            for last_frame, _, picture in islice(groups, last + 1):
                if not isinstance(picture, SkippedFrame):
                    yield last_frame, picture
            return
        # From where groups cannot be told apart, or do not decode by themselves, all are decoded
        for frame, _, picture in islice(self.frames(camera), last + 1):
            if frame > last_frame:
                yield frame, picture

    @property
    def state_names(self) -> tuple[str, ...]:
        """One per dimension, or none at all."""
        return names_of(self.states)

    @property
    def action_names(self) -> tuple[str, ...]:
        return names_of(self.actions)


def matrix(rows: pa.Table) -> np.ndarray:
    return np.column_stack([column.to_numpy() for column in rows.columns])


def names_of(rows: pa.Table | None) -> tuple[str, ...]:
    if rows is not None and any(rows.column_names):
        return tuple(rows.column_names)
    return ()


def record_row(record: EpisodeRecord) -> dict[str, Any]:
    """The record as columns of the table episode_facts (without dataset and chunk)."""
    # asdict copies each value: it takes three times as long
    return vars(record) | {
        "cameras": record.cameras,
        "videos": [*map(vars, record.videos)],
        "steps": [*map(vars, record.steps)],
        "as_far_as": record.as_far_as and vars(record.as_far_as),
    }


def record_from_row(row: dict[str, Any]) -> EpisodeRecord:
    """Inverse of record_row."""
    # A release of an earlier version lacks the number in the source
    row = {"source_index": None} | row
    fields = {k: row[k] for k in EpisodeRecord.__dataclass_fields__}
    fields["tasks"] = tuple(row["tasks"])
    fields["videos"] = tuple(CameraVideo(**v) for v in row["videos"])
    fields["steps"] = tuple(NativeStep(**s) for s in row["steps"])
    # Rows that an earlier version wrote have neither a plan nor a run to be compared with
    fields["plan"] = tuple(row["plan"] or ())
    fields["as_far_as"] = row["as_far_as"] and EpisodeFrame(**row["as_far_as"])
    return EpisodeRecord(**fields)


@dataclass
class PartCensus:
    """The parts of a dataset, as a reader comes upon them; each is kept once, with the number of its episodes.

    `most`: of different parts; `num_beyond`: how often others came after so many.
    """

    parts: dict[tuple[PartKind, str, str], SourcePart] = field(default_factory=dict)
    most: int = LIMITS.max_features
    num_beyond: int = 0

    def add(self, part: SourcePart) -> None:
        """Keep a part, or count it to the one that has its kind, name and use. Of an unknown one comes a finding."""
        key = (part.kind, part.name, f"{part.status} {part.use}")
        former_part = self.parts.get(key)
        if former_part is not None:
            shape = _common_shape(former_part.shape, part.shape)
            num_times = former_part.num_times + part.num_times
            self.parts[key] = replace(former_part, shape=shape, num_times=num_times)
        elif len(self.parts) < self.most:
            self.parts[key] = part
        else:
            self.num_beyond += part.num_times

    def listed(self) -> tuple[SourcePart, ...]:
        """All parts, by kind and name."""
        return tuple(self.parts[key] for key in sorted(self.parts))

    def findings(self) -> list[Finding]:
        """A finding for each part that is used for nothing, and one where there are more parts than the limit."""
        unknown = [part for part in self.listed() if part.status == "unknown"]
        findings = [
            Finding("part_not_used", part_text(part), "warning", file=part.file) for part in unknown
        ]
        if self.num_beyond:
            detail = (
                f"{self.num_beyond} parts are not in the list of what the source holds: it names {self.most:,} "
                "(limits.max_features of the registry entry)"
            )
            findings.append(Finding("over_limit", detail, "warning"))
        return findings


def joined(parts: Iterable[SourcePart]) -> tuple[SourcePart, ...]:
    """Parts in order, those of the same kind, name and use as one."""
    census = PartCensus(most=sys.maxsize)
    for part in parts:
        census.add(part)
    return census.listed()


def part_text(part: SourcePart) -> str:
    """A part and why it is not used, in a line. Example: "array obs/tactile (100 x 16 float32): no key is ..."."""
    form = part_form(part.shape, part.dtype)
    return f"{part.kind} {part.name}{f' ({form})' if form else ''}: {part.why}"


def part_form(shape: Sequence[int | None], dtype: str) -> str:
    """Shape and type in words. Example: part_form((None, 16), "float32") == "? x 16 float32"."""
    size = " x ".join("?" if n is None else str(n) for n in shape)
    return " ".join(filter(None, (size, dtype)))


def _common_shape(
    first: tuple[int | None, ...], second: tuple[int | None, ...]
) -> tuple[int | None, ...]:
    """The dimensions that two shapes share, None for those that differ; () for shapes of unlike rank."""
    if len(first) != len(second):
        return ()
    return tuple(a if a == b else None for a, b in zip(first, second, strict=True))
