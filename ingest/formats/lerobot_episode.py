"""What an episode of LeRobot is read from: state and action among the columns of its rows, the statistics that are
stored of these, and the picture of a video that belongs to each row.

Most datasets have one column of each. Some have a column for each part
(`observation.state.gripper_position`), or keep a gripper in a column beside the state. The
registry's `keys` name the columns where nothing else does. Names of dimensions are in info.json;
GR00T and StarVLA have them in meta/modality.json, as slices of columns.
"""

import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from itertools import chain
from math import ceil
from typing import Any, Literal, NamedTuple

import numpy as np
import pyarrow as pa

from ingest.episode import FrameTimes, Match, StoredStatistics
from ingest.formats.folders import object_of
from ingest.formats.lerobot_meta import META_EPISODES, read_info
from ingest.formats.listing import REGISTERED
from ingest.formats.side_files import parse_json_lines, read_json, read_text
from ingest.formats.tables import is_list, known_values, number_columns, vectors
from ingest.formats.tree import ALL_ROWS, Part, Roles, Vector
from ingest.formats.tree_reader import ArrayTree, roles_of, vector_of
from ingest.formats.writers import LEROBOT, LEROBOT_VECTORS
from ingest.reasons import DataError
from ingest.signals.naming import Column, named_grippers, names_by_parts
from ingest.sources.files import Source, once

# How columns begin that hold a part
PART = re.compile(r"(observation\.states?|states?|actions?)\.|observation\.")
NUMBERS = (
    "float16",
    "float32",
    "float64",
    "int8",
    "int16",
    "int32",
    "int64",
    "uint8",
    "uint16",
    "uint32",
    "bool",
)
MODALITY = "meta/modality.json"
WHOLE_KEYS = (*LEROBOT_VECTORS["state"], *LEROBOT_VECTORS["action"])

type NamesBy = Literal["name", "modality.json"]


class Vectors(NamedTuple):
    """State and action of an episode, where the names of their dimensions are from, and which columns they are of."""

    state: pa.Table | None
    action: pa.Table | None
    names_by: NamesBy
    roles: Roles


@once
def modality_of(source: Source) -> dict[str, Any]:
    """meta/modality.json; {} for none, and for one that cannot be read, which the listing finds."""
    if MODALITY in source.files:
        with suppress(DataError):
            return object_of(read_json(source, MODALITY))
    return {}


def slices_by_column(source: Source, vector: Column) -> dict[str, dict[str, dict[str, Any]]]:
    """The slices of meta/modality.json by the column within which they count, and by name.

    Without `original_key` a slice counts within the whole vector, which is here "".
    """
    slices: dict[str, dict[str, dict[str, Any]]] = {}
    for name, limits in object_of(modality_of(source).get(vector)).items():
        column = object_of(limits).get("original_key")
        slices.setdefault(column if isinstance(column, str) else "", {})[name] = object_of(limits)
    return slices


@once
def signal_columns(source: Source) -> tuple[str, ...]:
    """The columns that state and action may be read from. Raises DataError."""
    keys = source.config.keys
    features = read_info(source)["features"]
    written = (n for n in (*WHOLE_KEYS, *features) if _may_hold_vectors(n, features.get(n)))
    by_modality = (*slices_by_column(source, "state"), *slices_by_column(source, "action"))
    columns = (*written, *by_modality, *keys.state, *keys.action)
    return tuple(dict.fromkeys(filter(None, columns)))


def _may_hold_vectors(name: str, feature: Any) -> bool:
    """Is a column called as LeRobot calls those of state and action, or a gripper's beside them?"""
    beside = LEROBOT.grippers_beside.values() if named_grippers([name]) else ()
    patterns = (*chain.from_iterable((*LEROBOT.state, *LEROBOT.action)), *beside)
    return any(re.fullmatch(pattern, f"{name} {_form(feature, True)}") for pattern in patterns)


def _form(feature: Any, are_vectors: bool) -> str:
    """A column's type, as the patterns of its writer have it; declared: as numbers, by info.json."""
    return f"vectors={are_vectors} declared={object_of(feature).get('dtype') in NUMBERS}"


def read_signals(source: Source, rows: pa.Table) -> Vectors:
    """State and action among an episode's rows. Raises DataError."""
    features = read_info(source)["features"]
    arrays: dict[str, np.ndarray] = {}
    problems: dict[str, DataError] = {}
    for name in filter({*rows.column_names}.__contains__, signal_columns(source)):
        feature = object_of(features.get(name))
        try:
            values = vectors(rows[name], name, singles=True)
        except DataError as e:
            problems[name] = e
            values = np.zeros((0, 0))
        if values is not None:
            arrays[name] = known_values(values, object_of(feature.get("info")) | feature)
    forms = ((name, a.shape[1], _are_vectors(rows[name].type)) for name, a in arrays.items())
    of_state, of_action, names_by = _roles(source, *forms)
    roles = of_state._replace(action=of_action.action)
    for path in filter(problems.__contains__, (*roles.state.paths, *roles.action.paths)):
        raise problems[path]
    tree = ArrayTree(arrays, {}, source.config.keys, LEROBOT)
    state = vector_of(tree, "state", of_state, ALL_ROWS)
    action = vector_of(tree, "action", of_action, ALL_ROWS)
    return Vectors(state, action, names_by, roles)


@once
def _roles(source: Source, *columns: tuple[str, int, bool]) -> tuple[Roles, Roles, NamesBy]:
    """Of columns by name, width, and whether they hold vectors, with the names that the state has of their dimensions,
    and with those that the action has; and where names are from."""
    features = read_info(source)["features"]
    widths = {name: width for name, width, _ in columns}
    forms = {name: _form(features.get(name), are_vectors) for name, _, are_vectors in columns}
    # In the order of info.json
    parts = [
        Part(n, "column", (None,), forms[n], names=_names(n, features.get(n), widths[n]))
        for n in filter(widths.__contains__, {**features, **widths})
    ]
    roles = roles_of(parts, source.config.keys, LEROBOT)
    of_state, is_state_sliced = _with_slices(source, roles, "state", widths)
    of_action, is_action_sliced = _with_slices(source, roles, "action", widths)
    # A gripper is looked for in the state first
    is_named = bool(named_grippers(_joined_names(of_state.names, of_state.state.paths)))
    is_sliced = is_state_sliced or (is_action_sliced and not is_named)
    return of_state, of_action, "modality.json" if is_sliced else "name"


def _are_vectors(type_: pa.DataType) -> bool:
    """Does a column hold numbers that measure: single whole numbers count something, and flags say something."""
    inner = type_
    while is_list(inner):
        inner = inner.value_type
    return pa.types.is_floating(inner) or (pa.types.is_integer(inner) and is_list(type_))


def _names(column: str, feature: Any, width: int) -> Sequence[str]:
    """Of a column's dimensions, as info.json has one for each, if it does; those of a part begin with its name."""
    names = dimension_names(feature)
    if len(names) != width:
        names = [""] * width
    if column in WHOLE_KEYS:
        return names
    part = column[end.end() if (end := PART.match(column)) else 0 :]  # such as gripper_position
    return [part] if width == 1 else [f"{part}.{name or k}" for k, name in enumerate(names)]


def _with_slices(
    source: Source, roles: Roles, column: Column, widths: Mapping[str, int]
) -> tuple[Roles, bool]:
    """Where no name of a vector says that it is of a gripper, the roles with the names of modality.json's slices, where
    these do, each in its own column; and does one now?

    A column that only modality.json tells of counts where there is no other, or where it holds the gripper.
    """
    vector = {"state": roles.state, "action": roles.action}[column]
    names = dict(roles.names)
    if vector.why == REGISTERED or named_grippers(_joined_names(names, vector.paths)):
        return roles, False
    paths = list(vector.paths)
    for stored, slices in slices_by_column(source, column).items():
        path = stored or next(iter(vector.paths), "")
        slice_names = names_by_parts(slices, widths.get(path, 0))
        if path in widths and (named_grippers(slice_names) or not vector.paths):
            names[path] = slice_names
            paths.append(path)
    vector = Vector(tuple(dict.fromkeys(paths)), vector.why or f"{MODALITY} names it")
    roles = roles._replace(names=names, **{column: vector})
    return roles, bool(named_grippers(_joined_names(names, vector.paths)))


def _joined_names(names: Mapping[str, Sequence[str]], paths: Sequence[str]) -> list[str]:
    """The names of the dimensions of some columns."""
    return list(chain.from_iterable(names.get(path, ()) for path in paths))


def dimension_names(feature: Any) -> Sequence[str]:
    """Names of a feature's dimensions; info.json has a list, or a mapping that holds lists or places, or nothing."""
    stated_names = object_of(feature).get("names")
    if isinstance(stated_names, dict) and {*map(type, stated_names.values())} <= {int}:
        return list(map(str, sorted(stated_names, key=stated_names.__getitem__)))
    of_parts = stated_names if isinstance(stated_names, dict) else {"": stated_names}
    parts = {part: listed for part, listed in of_parts.items() if isinstance(listed, list)}
    # A list may be one of lists; the names of several parts are told apart by their parts
    names: list[str] = []
    for part, entries in parts.items():
        prefix = f"{part}." if len(parts) > 1 else ""
        for entry in entries:
            inner_names = entry if isinstance(entry, list) else [entry]
            names += [f"{prefix}{name}" for name in inner_names]
    return names


# The statistics that a dataset stores of its state and action, by which policies normalise them: meta/stats.json has
# them of all rows, meta/episodes_stats.jsonl (v2.1) of each episode. The checkup holds them against the rows. Those of
# v3.0's meta/episodes are not read: LeRobot itself uses only meta/stats.json there

NAMES = ("min", "max", "mean", "std")
OF_ALL = "meta/stats.json"
OF_EPISODES = "meta/episodes_stats.jsonl"


def stored_statistics(source: Source, episode: int, roles: Roles) -> list[StoredStatistics]:
    """What is stored of an episode's state and action; of one that is of several columns nothing is compared."""
    of_all, problem = _stored(source, OF_ALL)
    by_episode, problem_of_episodes = _stored(source, OF_EPISODES)
    this_episode = by_episode.get(episode, {})
    problems = filter(None, (problem, problem_of_episodes))
    statistics = [StoredStatistics(problem=text) for text in problems]
    for vector, (names, _) in (("state", roles.state), ("action", roles.action)):
        if len(names) == 1:
            [name] = names
            statistics += _parsed(vector, OF_ALL, of_all.get(name), is_of_episode=False)
            statistics += _parsed(vector, OF_EPISODES, this_episode.get(name), is_of_episode=True)
    return statistics


def counted_rows(source: Source) -> Any:
    """How many rows meta/stats.json is of, as it counts the values of a column with one for each; None: not said."""
    # Those of episodes may be large, and no listing needs them
    count = object_of(_stored(source, OF_ALL)[0].get("index")).get("count")
    return count[0] if isinstance(count, list) and count else count


@once
def _stored(source: Source, file: str) -> tuple[Mapping[Any, Any], str]:
    """The statistics in a file, by column or by episode, and why they cannot be read, as of one beyond the limits of
    metadata; lines that are of no episode say nothing.
    """
    if file not in source.files:
        return {}, ""
    try:
        if file == OF_ALL:
            return object_of(read_json(source, file)), ""
        lines, _ = parse_json_lines(read_text(source, file), strict=False)
    except DataError as e:
        return {}, str(e)
    rows = [object_of(value) for _, value in lines]
    return {
        row["episode_index"]: object_of(row.get("stats"))
        for row in rows
        if type(row.get("episode_index")) is int
    }, ""


def _parsed(vector: str, file: str, stored: Any, *, is_of_episode: bool) -> list[StoredStatistics]:
    """One column's statistics where they are numbers of one width."""
    values = object_of(stored)
    try:
        numbers = [np.atleast_1d(np.array(values[name], np.float64)) for name in NAMES]
    except (KeyError, ValueError, TypeError, OverflowError):
        return []
    low, high, mean, spread = numbers
    if low.ndim != 1 or any(part.shape != low.shape for part in numbers):
        return []
    return [StoredStatistics(vector, file, low, high, mean, spread, is_of_episode)]


# Which picture of a video belongs to each row
#
# By time, as LeRobot's own reader takes it: the picture that is shown `from_timestamp + timestamp` into the file, which
# LeRobot allows to be a ten-thousandth of a second off. Where times do not meet pictures so well, the lengths of the
# episodes that share the file decide, then the number of pictures before the next episode begins, then the nearest
# picture. Rows and pictures at rates of their own, over the same time, are joined by time. What does not meet is said,
# with its size

TOLERANCE_S = 1e-4  # what LeRobot's reader allows
SAME_RATE = 0.1  # relative: rows and pictures whose rates differ by less are meant to come at one
POINTERS = ("chunk_index", "file_index", "from_timestamp", "to_timestamp")  # of each camera
ROUNDED_S = 1024.0  # from then on float32 times are farther from one another than LeRobot allows


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
    # Does each row meet a picture, as LeRobot sees it?
    if pair.is_even and pair.is_within(TOLERANCE_S):
        spare = 0 if span.is_shared else len(video.ticks) - num_rows
        doubt = f"{len(video.ticks)} frames, {num_rows} rows: each row has its own by time, {spare} frames have no row"
        return Match(pair.by_time, doubt if spare else "", "length_differs")
    first = pair.first_by_lengths()
    if first is not None:
        return pair.match_at(first + np.arange(num_rows), "by the lengths of the file's episodes")
    begin, count = pair.within_span()
    if count == num_rows:
        return pair.match_at(begin + np.arange(num_rows), "row by row")
    # Is there a picture of its own at most half a frame from each row?
    if pair.is_within(pair.period_s / 2):
        return pair.match_at(pair.by_time, "by the nearest time")
    if rates := pair.other_rates():
        return pair.match_at(pair.by_time, rates)
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
        # Does each episode of the file begin exactly at a picture? Else its starts drift, and none of them is believed
        starts_s = np.zeros(0) if span.starts_s is None else span.starts_s
        starts_s = starts_s[starts_s <= video.seconds[-1]]
        off_s = np.abs(video.seconds[video.nearest(starts_s)] - starts_s)
        self.is_even = bool((off_s < TOLERANCE_S).all())
        if self.row_times_s is not None:
            self.by_time = video.nearest(self.row_times_s)
            self.off_s = np.abs(self.picture_times_s[self.by_time] - self.row_times_s)
            if span.start_s < span.end_s <= span.next_s + self.period_s / 2:
                end_s = span.end_s
            else:
                end_s = span.next_s
            self.is_in_span = self.row_times_s < end_s - self.period_s / 2

    def other_rates(self) -> str:
        """How rows are matched that come at another rate than the pictures, from the same time to the same time, in
        words; "" for others.
        """
        if self.row_times_s is None or self.num_rows < 2:
            return ""
        steps_s = np.diff(self.row_times_s)
        rows_s = float(np.median(steps_s))
        is_one_rate = abs(rows_s / self.period_s - 1) < SAME_RATE
        # The last row has to be at the last picture, too: else the times are of something else
        within_s = self.picture_times_s[self.picture_times_s < self.span.next_s - self.period_s / 2]
        is_rising = bool((steps_s > 0).all() and self.is_in_span.all())
        if is_one_rate or not is_rising or len(within_s) < 2:  # one picture has no rate
            return ""
        longest_s = max(self.period_s, float(steps_s.max()))
        ends_s = abs(float(within_s[-1]) - float(self.row_times_s[-1]))
        if ends_s > longest_s + TOLERANCE_S or float(self.off_s.max()) > longest_s:
            return ""
        return f"by the nearest time, since {1 / rows_s:.4g} rows and {1 / self.period_s:.4g} pictures come in a second"

    def is_within(self, most_s: float) -> bool:
        """Has each row a picture of its own, less far away than that?"""
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
        ends_s = [s for s in (self.span.next_s, self.span.end_s) if s > self.span.start_s]
        ends = np.searchsorted(self.picture_times_s, np.array(ends_s) - self.period_s / 2)
        counts = (ends - self.start).tolist()
        return self.start, self.num_rows if self.num_rows in counts else min(counts, default=0)

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


# What the metadata of v3.0 says of each file


def span_of(source: Source, camera: str, episode_index: int, start_s: float) -> VideoSpan:
    """Where an episode of a v3.0 dataset is in its video; `start_s`: where the
    metadata does not say.

    Raises DataError where the metadata cannot be read any more.
    """
    claims = _claims(source, camera)
    entries = np.flatnonzero(claims["episode_index"] == episode_index)
    if not len(entries) or not np.isfinite(claims["from_timestamp"][entries[-1]]):
        return VideoSpan(start_s, is_shared=True)
    entry = entries[-1]
    chunks, files = claims["chunk_index"], claims["file_index"]
    is_in_file = (chunks == chunks[entry]) & (files == files[entry])
    starts_s = claims["from_timestamp"][is_in_file]
    begin_s = claims["from_timestamp"][entry]
    lengths = claims["length"][is_in_file]
    later_s = starts_s[starts_s > begin_s]
    return VideoSpan(
        float(begin_s),
        end_s=float(np.nan_to_num(claims["to_timestamp"][entry], nan=np.inf)),
        next_s=float(later_s.min(initial=np.inf)),
        is_shared=True,
        rows_before=float(lengths[starts_s < begin_s].sum()),
        length=float(claims["length"][entry]),
        # Episodes that begin at one time are not in an order
        total=float(lengths.sum()) if len(np.unique(starts_s)) == len(starts_s) else np.nan,
        starts_s=starts_s,
    )


@once
def _claims(source: Source, camera: str) -> dict[str, np.ndarray]:
    """What the episodes say of one camera's files: arrays with one entry for each, NaN where it says nothing."""
    names = ["episode_index", "length", *(f"videos/{camera}/{name}" for name in POINTERS)]
    uris = filter(META_EPISODES.match, source.files)
    tables = [number_columns(source, uri, names) for uri in uris]
    claims = {}
    for name in names:
        numbers = chain.from_iterable(table[name] for table in tables)
        claims[name.rpartition("/")[2]] = np.array([*numbers], np.float64)
    return claims
