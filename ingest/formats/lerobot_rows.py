"""Rows of LeRobot episodes: where they are, what they say of task and outcome, and their pictures."""

import math
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import groupby, pairwise, repeat, takewhile
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from ingest.episode import VideoError
from ingest.formats.folders import object_of
from ingest.formats.lerobot_meta import (
    EPISODE_FILE,
    MAX_EPISODE,
    META_EPISODES,
    LerobotListing,
    expected,
    locate,
    v2_numbers,
    v3_data_files,
    v3_pointer,
)
from ingest.formats.tables import (
    batches,
    finite,
    has_numbers,
    number_columns,
    opened,
    ranges,
    single_numbers,
    whole,
)
from ingest.media.picture import PICTURE_TEXTS, ArrayPicture, decode_picture
from ingest.outcomes import (
    NO_EVIDENCE,
    OutcomeEvidence,
    ends_early,
    evidence_of,
    fields_of,
    known,
)
from ingest.reasons import LIMITS, DataError, Limits
from ingest.sources.files import Source

REWARD_KEYS = ("next.reward", "reward")
END_MARK = "next.done"
MAX_PATH = 120  # characters of a path in a message
RUNS = 2  # times limits.max_episodes: episodes of one file, each as often as its rows do not stand together
PICTURE_BATCH = 16  # rows with pictures read at a time
FACT_BATCH = 1 << 12  # rows with texts read at a time


@dataclass(frozen=True)
class StoredEpisode:
    """An episode as its rows and its metadata show it; either may be missing. Where its rows are: without a `uri`
    nowhere.
    """

    uri: str = ""
    row_start: int = 0
    num_rows: int = 0
    task_indices: tuple[int, ...] = ()  # in order of appearance
    pictures: frozenset[str] = frozenset()  # columns that hold encoded pictures
    # Of the columns that the registry names; in the last row
    facts: Mapping[str, Any] = field(default_factory=dict)
    evidence: OutcomeEvidence = NO_EVIDENCE  # flags of success and the reward
    ends_early: bool = False  # a row that is marked as the last one has others behind it
    meta: Mapping[str, Any] = field(default_factory=dict)  # what the metadata says of it

    @property
    def num_frames(self) -> int | None:
        """None: neither says it."""
        return self.num_rows if self.uri else whole(self.meta.get("length"))


Episodes = Mapping[int, StoredEpisode]


def with_metadata(
    rows: Episodes, metadata: Mapping[int, Mapping[str, Any]]
) -> dict[int, StoredEpisode]:
    """All episodes that rows or metadata tell of, in order."""
    return {
        index: replace(rows.get(index, StoredEpisode()), meta=metadata.get(index, {}))
        for index in sorted(metadata.keys() | rows.keys())
    }


def find_rows(
    dataset: LerobotListing, metadata: dict[int, dict[str, Any]]
) -> dict[int, StoredEpisode]:
    """Where the rows of each episode are, by the layout that is on disk."""
    rows: dict[int, StoredEpisode] = {}
    if dataset.version != "v3.0":
        # One data file per episode: those that the metadata lists, and those that it does not
        matches = filter(None, map(EPISODE_FILE.match, dataset.source.files))
        numbers = {number for match in matches if (number := int(match[1])) < MAX_EPISODE}
        episodes = filter(dataset.wants, sorted(numbers.union(metadata)))
        files = ((locate(dataset, "data_path", v2_numbers(dataset, e)), e) for e in episodes)
        _read_rows(dataset, [(uri, episode) for uri, episode in files if uri], rows, metadata)
        return rows
    # Row ranges by reading which episode each row says it is of; pointers in the metadata are not trusted. But they say
    # which files of a remote source to look into first. The others are only fetched when that does not find all
    # episodes that are asked for; without a selection all files are read, and pointers are not needed
    uris = v3_data_files(dataset)
    selected = {episode: row for episode, row in metadata.items() if dataset.wants(episode)}
    pointers = filter(None, map(v3_pointer, selected.values(), repeat("data")))
    is_part = len(selected) < len(metadata)
    pointed_at = {locate(dataset, "data_path", p) for p in pointers} if is_part else set(uris)
    _read_rows(dataset, [(uri, None) for uri in uris if uri in pointed_at], rows, metadata)
    if not selected.keys() <= rows.keys():
        unnamed_files = [(uri, None) for uri in uris if uri not in pointed_at]
        _read_rows(dataset, unnamed_files, rows, metadata)
    return rows


def _read_rows(
    dataset: LerobotListing,
    files: Sequence[tuple[str, int | None]],
    rows: dict[int, StoredEpisode],
    metadata: dict[int, dict[str, Any]],
) -> None:
    """Put the episodes of some data files into `rows`, with findings about rows of none and about a second place; of a
    file with a number all rows are that episode's, whatever they say.
    """
    # All files that are needed are fetched together, which a remote source does several at a time
    dataset.source.fetch(uri for uri, _ in files)
    strays = Counter[str]()
    for uri, owner in files:
        try:
            episodes = _episodes_of(dataset, uri, owner)
        except DataError as e:
            record = dataset.warn if owner is None else dataset.unusable
            record(e.reason, str(e), owner, file=uri)
            if e.reason == "lfs_pointer":
                dataset.pointers.add(uri)
            continue
        for episode, part in episodes:
            if not 0 <= episode < MAX_EPISODE:
                detail = f"{part.num_rows} rows, from row {part.row_start} on, are of no episode ({episode})"
                dataset.warn("unreadable_data", detail, file=uri)
            elif (first_part := rows.setdefault(episode, part)) is not part:
                expected_uri = expected(dataset, episode, metadata.get(episode, {}))
                by_uri = {uri: part, first_part.uri: first_part}
                if expected_uri not in by_uri or len(by_uri) == 1:
                    detail = "its rows do not stand together in one data file"
                    dataset.unusable("row_order", detail, episode, file=uri)
                    continue
                # The metadata says which of two files has them
                rows[episode] = by_uri.pop(expected_uri)
                [stray] = by_uri.values()
                strays[stray.uri] += stray.num_rows
    for uri, num_rows in strays.items():
        dataset.warn(
            "stray_file",
            f"{num_rows} rows of it are of episodes that meta/episodes has in another file: they are not read",
            file=uri,
        )


def _episodes_of(
    dataset: LerobotListing, uri: str, owner: int | None
) -> list[tuple[int, StoredEpisode]]:
    """Episodes of one file, in order of rows: one of them more than once where its rows do not stand together.

    `owner`: the episode that all rows are of, whatever they say. Raises DataError.
    """
    path = dataset.source.resolve(uri)
    limits = dataset.source.config.limits
    flag_names = fields_of(dataset.source.config.success_field)
    episode_rows = list[tuple[int, StoredEpisode]]()
    with opened(path) as file:
        count = file.metadata.num_rows
        schema = file.schema_arrow
        dataset.note_schema(schema, uri)
        has_tasks = has_numbers(schema, "task_index", only_whole=True)
        if owner is not None:
            limits.check("max_rows", count, f"{path.name}: rows")
            stretches = [(owner, 0)]
        elif not has_numbers(schema, "episode_index", only_whole=True):
            raise DataError("it has no column episode_index of whole numbers")
        else:
            stretches = _stretches(file, limits)
        numbers = [
            name
            for name in dict.fromkeys((*flag_names, *REWARD_KEYS, END_MARK))
            if has_numbers(schema, name)
        ]
        columns = list(dict.fromkeys(["task_index", *numbers])) if has_tasks else numbers
        edges = [*(start for _, start in stretches), count]
        places = [(start, end - start) for start, end in pairwise(edges)]
        # A file may claim any number of rows of one episode, which is not read then
        first_rows = [(start, min(num_rows, limits.max_rows)) for start, num_rows in places]
        # Arrow makes no empty list of JSON, which a column of language may be
        empty = pa.schema([schema.field(name) for name in columns]).empty_table()
        if columns and count:
            tables = ranges(file, first_rows, columns)
        else:
            tables = [empty] * len(places)
        facts = _facts(dataset, file, edges[1:])
        pictures = camera_columns(dataset.info, schema)
        for (episode, _), place, fact, table in zip(stretches, places, facts, tables, strict=True):
            evidence = _evidence(table.select(numbers), flag_names)
            tasks = known(single_numbers(table["task_index"])).tolist() if has_tasks else ()
            known_tasks = tuple(int(task) for task in dict.fromkeys(tasks) if task >= 0)
            is_early = END_MARK in numbers and ends_early(single_numbers(table[END_MARK]))
            rows = StoredEpisode(uri, *place, known_tasks, pictures, fact, evidence, is_early)
            episode_rows.append((episode, rows))
    return episode_rows


def _stretches(file: pq.ParquetFile, limits: Limits) -> list[tuple[int, int]]:
    """Rows of one episode that stand together: the episode and the first row of each. Raises DataError."""
    stretches = list[tuple[int, int]]()
    start_row = 0
    for batch in batches(file, ["episode_index"]):
        numbers = batch[0].to_numpy(zero_copy_only=False)  # float64 with NaN, where some are null
        episodes = np.nan_to_num(numbers, nan=-1).astype(np.int64)
        previous_episode = np.array([stretches[-1][0]]) if stretches else episodes[:1] - 1
        starts = np.flatnonzero(np.diff(episodes, prepend=previous_episode))
        stretches += zip(episodes[starts].tolist(), (starts + start_row).tolist(), strict=True)
        limits.check("max_episodes", len(stretches), "stretches of rows of one episode", RUNS)
        start_row += batch.num_rows
    return stretches


def _evidence(table: pa.Table, flag_names: Sequence[str]) -> OutcomeEvidence:
    def fact(name: str) -> tuple[None, np.ndarray]:
        return None, known(single_numbers(table[name]))

    is_there = table.column_names.__contains__
    return evidence_of(fact, filter(is_there, flag_names), (), filter(is_there, REWARD_KEYS))[0]


def _facts(dataset: LerobotListing, file: pq.ParquetFile, ends: list[int]) -> list[dict[str, Any]]:
    """What the row before each of `ends` says in the columns that the registry has for success, group and language."""
    config = dataset.source.config
    names = file.schema_arrow.names
    registered = dict.fromkeys(
        [config.success_field, config.group_field or "", *config.keys.language]
    )
    columns = [column for column in registered if names.count(column) == 1]
    # An episode at the table's beginning that has no rows has no last one
    if not columns or 0 in ends:
        return [{} for _ in ends]
    last_rows = [(end - 1, 1) for end in ends]
    return [table.to_pylist()[0] for table in ranges(file, last_rows, columns, FACT_BATCH)]


# Pictures


def picture_columns(schema: pa.Schema) -> frozenset[str]:
    """Columns of bytes, or of structs with bytes or a path: what encoded pictures are stored as."""
    return frozenset(f.name for f in schema if _holds_pictures(f.type))


def camera_columns(info: Mapping[str, Any], schema: pa.Schema) -> frozenset[str]:
    """Columns of pictures, and those of texts that info.json declares as cameras: these name files."""
    texts = [
        f.name for f in schema if pa.types.is_string(f.type) or pa.types.is_large_string(f.type)
    ]
    dtypes = {name: object_of(info["features"].get(name)).get("dtype") for name in texts}
    return picture_columns(schema) | {
        name for name, dtype in dtypes.items() if dtype in ("image", "video")
    }


def _holds_pictures(type_: pa.DataType) -> bool:
    if pa.types.is_struct(type_):
        names = {f.name: f.type for f in type_}
        return "path" in names or ("bytes" in names and _holds_pictures(names["bytes"]))
    return pa.types.is_binary(type_) or pa.types.is_large_binary(type_)


def read_pictures(
    source: Source, uri: str, start: int, count: int, column: str
) -> Iterator[ArrayPicture]:
    """Pictures of some rows: encoded in them, or in files that they name. Raises DataError."""
    # Few rows at a time: pictures of a whole episode may not fit into memory
    places = [
        (row, min(PICTURE_BATCH, start + count - row))
        for row in range(start, start + count, PICTURE_BATCH)
    ]
    with opened(source.resolve(uri)) as file:
        for (first, _), table in zip(
            places, ranges(file, places, [column], PICTURE_BATCH), strict=False
        ):
            for row, cell in enumerate(table[column].to_pylist(), first):
                description = f"{column} in row {row} of {uri}"
                yield decode_picture(
                    _picture_bytes(source, uri, cell, description),
                    description,
                    source.config.limits,
                )


def _picture_bytes(source: Source, uri: str, cell: Any, description: str) -> bytes:
    """The bytes of an encoded picture in a cell, or in the file that it names. Raises DataError.

    A cell is a struct of both, of which one is null, or one of them alone.
    """
    if isinstance(cell, dict):
        data = cell.get("bytes")
        path = cell.get("path")
    else:
        data, path = (None, cell) if isinstance(cell, str) else (cell, None)
    if data:
        return data
    if not isinstance(path, str) or not path:
        raise VideoError(f"{description} has no picture")
    if path.encode().startswith(PICTURE_TEXTS):
        return path.encode()
    file = picture_file(source, uri, path)
    if not file:
        raise VideoError(
            f"{description} has no picture, and {path[:MAX_PATH]} is no file of the dataset, nor is any end of it"
        )
    source.config.limits.check(
        "max_chunk_bytes", source.files[file].size, f"{description}: bytes of {file}"
    )
    return source.resolve(file).read_bytes()


def picture_file(source: Source, uri: str, path: str) -> str:
    """The file that a table's row names: from the root, from the table's folder, or the one whose path ends as a path
    of the recorder's machine does, by the most folders; "" for none, or several.

    Example: of "/home/me/set/images/front/frame_0.png" it is "images/front/frame_0.png".
    """
    for exact_file in (path, f"{uri.rpartition('/')[0]}/{path}"):
        if exact_file in source.files:
            return exact_file
    parts = path.replace("\\", "/").split("/")
    candidates = source.by_name.get(parts[-1], [])
    shared: dict[int, list[str]] = {}
    for candidate in candidates:
        pairs = zip(reversed(candidate.split("/")), reversed(parts), strict=False)
        num_equal = sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], pairs))
        # A name alone may be that of another episode's picture
        if num_equal >= min(2, len(parts), candidate.count("/") + 1):
            shared.setdefault(num_equal, []).append(candidate)
    best = shared[max(shared)] if shared else []
    if len(best) == 1:
        return best[0]
    return ""


# Columns of the rows that steps are read from, and frames by the times of the rows


def cells_of(
    dataset: LerobotListing, episodes: Episodes, column: str, most_rows: int = LIMITS.max_rows
) -> Iterator[tuple[int, pa.ChunkedArray]]:
    """A column of each episode's rows, of those files that have it; `most_rows`: of its first ones."""
    with_rows = [(episode, index) for index, episode in episodes.items() if episode.num_rows]
    with_rows.sort(key=lambda pair: (pair[0].uri, pair[0].row_start))
    for uri, of_file in groupby(with_rows, key=lambda pair: pair[0].uri):
        places = {index: (rows.row_start, min(rows.num_rows, most_rows)) for rows, index in of_file}
        try:
            with opened(dataset.source.resolve(uri)) as file:
                if column in file.schema_arrow.names:
                    tables = ranges(file, list(places.values()), [column])
                    yield from (
                        (index, table[column]) for index, table in zip(places, tables, strict=False)
                    )
        except DataError as e:
            dataset.warn(
                "bad_steps" if e.reason == "unreadable_data" else e.reason, str(e), file=uri
            )


class Times:
    """Frames by times: those of the rows, which need not be frame / fps; else by the frame rate."""

    def __init__(self, fps: float, rows_s: np.ndarray | None = None) -> None:
        self.fps = fps
        # A time that is no number is not behind any
        steps_s = np.diff(np.zeros(0) if rows_s is None else rows_s, prepend=-np.inf)
        self.rows_s = rows_s if len(steps_s) and (steps_s >= 0).all() else None

    def frame(self, time_s: Any) -> int:
        """The frame whose time is the nearest. Raises ValueError for what is no time."""
        seconds = finite(time_s)
        if seconds is None or (self.rows_s is None and math.isnan(self.fps)):
            raise ValueError(f"{time_s!r} is no time or frame of a step")
        if self.rows_s is None:
            return round(seconds * self.fps)
        return int(np.abs(self.rows_s - seconds).argmin())

    def end(self, time_s: Any, num_frames: int | None) -> int:
        """As `frame`, of the end of a span, which may be behind the last frame's time."""
        frame = self.frame(time_s)
        if num_frames is None:
            return frame
        last_s = (num_frames - 1) / self.fps if self.rows_s is None else float(self.rows_s[-1])
        if (finite(time_s) or 0.0) > last_s:
            return num_frames
        return min(frame, num_frames)


def times_of(dataset: LerobotListing, episodes: Episodes) -> dict[int, Times]:
    """The times of each episode's rows, where it has rows with times."""
    times = {index: Times(dataset.rate) for index in episodes}
    for index, column in cells_of(dataset, episodes, "timestamp"):
        if has_numbers(pa.schema({"timestamp": column.type}), "timestamp"):
            times[index] = Times(dataset.rate, single_numbers(column))
    return times


# Traces of edits after which the numbers of steps lead to no text, or to another one: LeRobot's tools that delete,
# split and merge number the tasks anew, in the rows' `task_index` alone. Columns such as `annotation.*`, which count by
# the same texts, keep the old numbers. Files of steps' texts, and further columns of meta/episodes, they leave out. Not
# every such edit leaves a trace

# LeRobot 0.6.1 copies these as they are when it deletes or splits
LEAST = "stats/task_index/min"
MOST = "stats/task_index/max"


def changing_episodes(dataset: LerobotListing, episodes: Episodes, column: str) -> int:
    """In how many episodes a column has several values: what is the same in all rows is no step."""
    return sum(_changes(cells) for _, cells in cells_of(dataset, episodes, column))


def _changes(cells: pa.ChunkedArray) -> bool:
    if pa.types.is_nested(cells.type):
        return len({*map(str, cells.to_pylist())}) > 1
    return len(cells.unique()) > 1


def report_renumbered_tasks(dataset: LerobotListing, episodes: Episodes, column: str) -> bool:
    """Were the tasks numbered anew after a column was filled with their numbers? Then a finding says so."""
    task_numbers = {
        index: lowest
        for index, lowest, highest in _stored_ranges(dataset)
        if lowest == highest and index in episodes
    }
    renumbered = {
        index: n
        for index, n in task_numbers.items()
        if episodes[index].task_indices not in ((), (n,))
    }
    if renumbered:
        index, number = min(renumbered.items())
        task = episodes[index].task_indices[0]
        dataset.warn(
            "steps_lost",
            f"{column} is not used: the tasks were numbered anew in {len(renumbered)} of {len(task_numbers)} episodes "
            f"(episode {index}: task_index is {task}, and was {number} when its statistics "
            "were made), as LeRobot's tools do that delete and split; this column keeps the old numbers",
        )
    return bool(renumbered)


def report_merged_tasks(dataset: LerobotListing, episodes: Episodes) -> None:
    """Say in which episodes the rows name one task, and named several when their statistics were made."""
    # A number below 0 is none of a task
    merged = {
        index
        for index, lowest, highest in _stored_ranges(dataset)
        if 0 <= lowest < highest and index in episodes and len(episodes[index].task_indices) == 1
    }
    if merged:
        dataset.warn(
            "steps_lost",
            f"task_index is one task in {len(merged)} of {len(episodes)} episodes (the first: {min(merged)}) that had "
            "several when their statistics were made, as LeRobot's modify_tasks() leaves an episode one of its tasks: "
            "the steps that it named are lost, and the task may be that of one step",
        )


def _stored_ranges(dataset: LerobotListing) -> Iterator[tuple[int, int, int]]:
    """Episodes, and the least and the greatest number of their tasks by their stored statistics."""
    for uri in filter(META_EPISODES.match, dataset.source.files):
        try:
            columns = number_columns(dataset.source, uri, ("episode_index", LEAST, MOST))
        except DataError as e:
            # The file may have been read before: then a finding says so already
            if all(finding.file != uri for finding in dataset.findings):
                dataset.warn(e.reason, str(e), file=uri)
            continue
        for row in zip(*columns.values(), strict=True):
            index, lowest, highest = map(whole, row)
            if index is not None and lowest is not None and highest is not None:
                yield index, lowest, highest


def episodes_named_otherwise(
    dataset: LerobotListing, episodes: Episodes, columns: Collection[str], steps_from: str
) -> set[int]:
    """Episodes of which a column that names the task names another one than the rows' `task_index` does; a finding says
    so. The numbers of `steps_from` are then not those of the tasks' texts either.

    Such a column is the same in all rows of an episode. It is held against `task_index` only where the two agree in
    other episodes, or have the same numbers in another order: else it holds other wordings.
    """
    doubtful: set[int] = set()
    for column in columns:
        pairs = _task_numbers(dataset, episodes, column)
        wrong = sorted(index for index, (task, number) in pairs.items() if task != number)
        agreeing = len(pairs) - len(wrong)
        if wrong and (agreeing or _is_other_order(pairs)):
            task, number = pairs[wrong[0]]
            dataset.warn(
                "steps_lost",
                f"{steps_from} is not used for {len(wrong)} of {len(pairs)} episodes: there {column} has another task "
                f"than task_index (episode {wrong[0]}: {number}, not {task}), and the same in the other {agreeing}; "
                "the tasks were numbered anew, as LeRobot's tools do, and these columns keep the old numbers",
            )
            doubtful |= {*wrong}
    return doubtful


def _task_numbers(
    dataset: LerobotListing, episodes: Episodes, column: str
) -> dict[int, tuple[int, int]]:
    """By episode of one task, its `task_index` and its number in a column; none where the column changes."""
    pairs: dict[int, tuple[int, int]] = {}
    for index, cells in cells_of(dataset, episodes, column):
        numbers = cells.unique().to_pylist() if pa.types.is_integer(cells.type) else []
        if len(numbers) != 1 or numbers[0] is None:
            return {}
        tasks = episodes[index].task_indices
        if len(tasks) == 1:
            pairs[index] = tasks[0], numbers[0]
    return pairs


def _is_other_order(pairs: Mapping[int, tuple[int, int]]) -> bool:
    """Are the columns' numbers those of the tasks, one to one?"""
    mapping = {*pairs.values()}
    tasks = {task for task, _ in mapping}
    return len(mapping) == len(tasks) and tasks == {number for _, number in mapping}
