"""Rows of LeRobot episodes: where they are, and what they say of state and gripper."""

from bisect import bisect_left, bisect_right
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from ingest.episode import RowsError
from ingest.formats.lerobot_meta import (
    DATA_V2,
    DATA_V3,
    EPISODE_FILE,
    MAX_EPISODE,
    PARQUET_ERRORS,
    LerobotListing,
    expected,
    first_line,
    locate,
    unreadable,
    v2_numbers,
    v3_data_files,
    whole,
)
from ingest.formats.tables import batches, check, check_rows
from ingest.limits import LIMITS, Limits
from ingest.media.picture import ArrayPicture, decode_picture
from ingest.media.video import VideoError
from ingest.outcomes import NO_EVIDENCE, Evidence, RowValues, fields_of
from ingest.registry import DatasetConfig
from ingest.sources.files import Source

REWARD_KEYS = ("next.reward", "reward")
RUNS = 2  # times limits.max_episodes: episodes of one file, each as often as its rows do not stand together
BATCH = 1 << 16  # rows read at a time
PICTURE_BATCH = 16  # rows with pictures read at a time


@dataclass(frozen=True)
class EpisodeRows:
    """Where an episode's rows are."""

    uri: str
    row_start: int
    num_rows: int
    task_indices: tuple[int, ...]  # in order of appearance
    row_tasks: bool  # do the rows name their task at all
    pictures: frozenset[str] = frozenset()  # columns that hold encoded pictures
    facts: Mapping[str, Any] = field(default_factory=dict)  # of the columns that the registry names; in the last row
    evidence: Evidence = NO_EVIDENCE  # flags of success and the reward


class NumberColumn(NamedTuple):
    name: str
    values: np.ndarray  # float64 [n, d]


def find_rows(dataset: LerobotListing, metadata: dict[int, dict[str, Any]]) -> dict[int, EpisodeRows]:
    """Where the rows of each episode are, by the layout that is on disk."""
    return rows_v3(dataset, metadata) if dataset.version == "v3.0" else rows_v2(dataset, metadata)


def rows_v2(dataset: LerobotListing, metadata: dict[int, dict[str, Any]]) -> dict[int, EpisodeRows]:
    """One data file per episode: those that the metadata lists, and those that it does not."""
    uris: dict[int, str] = {}
    for episode in filter(dataset.wants, sorted(_episodes_with_file(dataset.source).union(metadata))):
        if uri := locate(dataset, "data_path", DATA_V2, **v2_numbers(dataset, episode)):
            uris[episode] = uri
    # All files that are needed are fetched together, which a remote source does several at a time
    dataset.source.fetch(uris.values())
    rows = {}
    for episode, uri in uris.items():
        try:
            rows[episode] = _whole_file(dataset, uri)
        except PARQUET_ERRORS as e:
            reason, detail = unreadable(dataset.source, uri, e)
            dataset.unusable(reason, detail, episode, file=uri)
    return rows


def _episodes_with_file(source: Source) -> set[int]:
    """Episodes by the names of data files of v2."""
    matches = [EPISODE_FILE.match(uri) for uri in source.files]
    numbers = [int(match[1]) for match in matches if match]
    return {number for number in numbers if number < MAX_EPISODE}


def _whole_file(dataset: LerobotListing, uri: str) -> EpisodeRows:
    """The rows of a file that holds one episode. Raises PARQUET_ERRORS."""
    path, limits = dataset.source.resolve(uri), dataset.source.config.limits
    with pq.ParquetFile(path) as file:
        check_rows(file, path, limits, of_one=True)
        count = file.metadata.num_rows
        has_tasks = _has_integers(file, "task_index")
        indices: list[int | None] = []
        if has_tasks:
            indices = file.read(["task_index"])["task_index"].unique().to_pylist()
        tasks = tuple(index for index in indices if index is not None)
        [facts] = _facts(dataset, file, path, [count])
        [evidence] = _evidence(dataset, file, [count])
        return EpisodeRows(uri, 0, count, tasks, has_tasks, picture_columns(file), facts, evidence)


def rows_v3(dataset: LerobotListing, metadata: dict[int, dict[str, Any]]) -> dict[int, EpisodeRows]:
    """Row ranges by reading which episode each row says it is of; pointers in the metadata are not trusted.

    But they say which files of a remote source to look into first. The others are only fetched when that does not find
    all episodes that are asked for.
    """
    rows: dict[int, EpisodeRows] = {}
    uris = v3_data_files(dataset)
    selected = {episode: row for episode, row in metadata.items() if dataset.wants(episode)}
    # Without a selection all files are read, and pointers are not needed
    first = uris if len(selected) == len(metadata) else _pointed_at(dataset, uris, selected)
    _read_rows_v3(dataset, first, rows)
    if not selected.keys() <= rows.keys():
        _read_rows_v3(dataset, [uri for uri in uris if uri not in first], rows)
    return rows


def expected_data_file(dataset: LerobotListing, episode: int, meta: Mapping[str, Any]) -> str:
    """The file that should hold an episode's rows; v3 without a pointer to it: what such files are called."""
    if dataset.version != "v3.0":
        return expected(dataset, "data_path", DATA_V2, **v2_numbers(dataset, episode))
    chunk, file = whole(meta.get("data/chunk_index")), whole(meta.get("data/file_index"))
    if chunk is None or file is None:
        return "data/chunk-*/file-*.parquet"
    # A template left over from v2 is filled in by episode
    numbers = v2_numbers(dataset, episode) | {"chunk_index": chunk, "file_index": file}
    return expected(dataset, "data_path", DATA_V3, **numbers)


def _pointed_at(dataset: LerobotListing, uris: list[str], metadata: dict[int, dict[str, Any]]) -> list[str]:
    """Of some data files those that the metadata of some episodes names."""
    named = set()
    for row in metadata.values():
        chunk, file = whole(row.get("data/chunk_index")), whole(row.get("data/file_index"))
        if chunk is not None and file is not None:
            named.add(locate(dataset, "data_path", DATA_V3, chunk_index=chunk, file_index=file))
    return [uri for uri in uris if uri in named]


def _read_rows_v3(dataset: LerobotListing, uris: list[str], rows: dict[int, EpisodeRows]) -> None:
    """Put the episodes of some data files into `rows`, with findings about rows of none and about a second place."""
    dataset.source.fetch(uris)
    for uri in uris:
        try:
            episodes = _episodes_of(dataset, uri)
        except PARQUET_ERRORS as e:
            reason, detail = unreadable(dataset.source, uri, e)
            dataset.warn(reason, detail, file=uri)
            if reason == "lfs_pointer":
                dataset.pointers.add(uri)
            continue
        for episode, part in episodes:
            _put_rows(dataset, episode, part, rows)


def _put_rows(dataset: LerobotListing, episode: int, part: EpisodeRows, rows: dict[int, EpisodeRows]) -> None:
    if not 0 <= episode < MAX_EPISODE:
        detail = f"{part.num_rows} rows, from row {part.row_start} on, are of no episode ({episode})"
        dataset.warn("unreadable_data", detail, file=part.uri)
    elif episode in rows:
        dataset.unusable("row_order", "its rows do not stand together in one data file", episode, file=part.uri)
    else:
        rows[episode] = part


@dataclass
class _Stretch:
    """Rows of one episode that stand together in a file."""

    episode: int
    start: int
    tasks: list[int] = field(default_factory=list)  # in order of appearance


def _episodes_of(dataset: LerobotListing, uri: str) -> list[tuple[int, EpisodeRows]]:
    """Episodes of one file, in order of rows: one of them more than once where its rows do not stand together."""
    path = dataset.source.resolve(uri)
    with pq.ParquetFile(path) as file:
        check_rows(file, path, dataset.source.config.limits, of_one=False)
        if not _has_integers(file, "episode_index"):
            raise RowsError("it has no column episode_index of whole numbers")
        has_tasks, pictures = _has_integers(file, "task_index"), picture_columns(file)
        stretches = _stretches(file, path, has_tasks, dataset.source.config.limits)
        # A stretch ends where the next one begins, and the last one with the table
        ends = [stretch.start for stretch in stretches[1:]] + [file.metadata.num_rows]
        facts, evidence = _facts(dataset, file, path, ends), _evidence(dataset, file, ends)
    episodes = []
    for stretch, end, fact, shown in zip(stretches, ends, facts, evidence, strict=True):
        start, tasks = stretch.start, tuple(stretch.tasks)
        rows = EpisodeRows(uri, start, end - start, tasks, has_tasks, pictures, fact, shown)
        episodes.append((stretch.episode, rows))
    return episodes


def _stretches(file: pq.ParquetFile, path: Path, has_tasks: bool, limits: Limits) -> list[_Stretch]:
    """Raises RowsError for too many."""
    # A run ends with a batch, so that several runs may be one stretch
    stretches: list[_Stretch] = []
    columns = ["episode_index", "task_index"] if has_tasks else ["episode_index"]
    for start, episode, *tasks in _runs(file, columns):
        if not stretches or stretches[-1].episode != episode:
            stretches.append(_Stretch(episode, start))
            if len(stretches) > RUNS * limits.max_episodes:
                check(limits.excess("max_episodes", len(stretches), f"{path.name}: runs of rows of one episode", RUNS))
        seen = stretches[-1].tasks
        seen.extend(task for task in tasks if task not in seen)
    return stretches


def _facts(dataset: LerobotListing, file: pq.ParquetFile, path: Path, ends: list[int]) -> list[dict[str, Any]]:
    """What the row before each of `ends` says in the columns that the registry has for success, group and language."""
    columns = _fact_columns(dataset.source.config, file.schema_arrow.names)
    # An episode at the table's beginning that has no rows has no last one
    if not columns or 0 in ends:
        return [{} for _ in ends]
    last_rows = [end - 1 for end in ends]
    facts: list[dict[str, Any]] = []
    num_before = 0
    for batch in batches(file, path, columns, dataset.source.config.limits, BATCH):
        # Of the last rows, those in this batch come after those whose facts are there already
        following = bisect_left(last_rows, num_before + batch.num_rows)
        inside = [row - num_before for row in last_rows[len(facts) : following]]
        facts += batch.take(pa.array(inside, pa.int64())).to_pylist()
        num_before += batch.num_rows
    return facts


def _fact_columns(config: DatasetConfig, names: list[str]) -> list[str]:
    """The columns that the registry names, as far as they are there, once each."""
    groups = [config.group_field] if config.group_field else []
    registered = dict.fromkeys([config.success_field, *groups, *config.keys.language])
    return [column for column in registered if names.count(column) == 1]


def _evidence(dataset: LerobotListing, file: pq.ParquetFile, ends: list[int]) -> list[Evidence]:
    """What the rows of each episode, the last one before each of `ends`, show of its outcome."""
    flag_names = fields_of(dataset.source.config.success_field)
    columns = [name for name in (*flag_names, *REWARD_KEYS) if _has_single_numbers(file, name)]
    if not columns:
        return [NO_EVIDENCE for _ in ends]
    gathered = [{name: RowValues() for name in columns} for _ in ends]
    num_before = 0
    for batch in file.iter_batches(BATCH, columns=columns, use_threads=False):
        values = {name: _single_numbers(batch[name]) for name in columns}
        for episode, part in _parts(ends, num_before, batch.num_rows):
            for name in columns:
                gathered[episode][name].add(values[name][part])
        num_before += batch.num_rows
    return [_evidence_of(of_episode, flag_names) for of_episode in gathered]


def _parts(ends: list[int], num_before: int, num_rows: int) -> Iterator[tuple[int, slice]]:
    """The episodes that a batch has rows of, by their place among `ends`, and these rows.

    Example: of episodes that end at 3 and 9, the rows 2 to 6 of a file are slice(0, 1) of the first and slice(1, 4) of
    the second.
    """
    at, episode = 0, bisect_right(ends, num_before)
    while at < num_rows:
        until = min(ends[episode] - num_before, num_rows)
        yield episode, slice(at, until)
        at, episode = until, episode + 1


def _evidence_of(values: Mapping[str, RowValues], flag_names: tuple[str, ...]) -> Evidence:
    flags = [values[name].flag(name) for name in flag_names if name in values]
    rewards = [values[name].reward(name) for name in REWARD_KEYS if name in values]
    return Evidence(flags=tuple(filter(None, flags)), reward=next(filter(None, rewards), None))


def _has_single_numbers(file: pq.ParquetFile, column: str) -> bool:
    """One number or boolean per row, by itself or in a list of one."""
    schema = file.schema_arrow
    if schema.names.count(column) != 1:
        return False
    type_ = schema.field(column).type
    if _is_list(type_):
        type_ = type_.value_type
    return pa.types.is_boolean(type_) or pa.types.is_integer(type_) or pa.types.is_floating(type_)


def _single_numbers(column: pa.Array) -> np.ndarray:
    """float64 [n], NaN for null, and for all where rows hold several."""
    if _is_list(column.type):
        is_single = set(column.value_lengths().unique().to_pylist()) == {1}
        if column.null_count or not is_single:
            return np.full(len(column), np.nan)
        column = column.flatten()
    if pa.types.is_boolean(column.type):
        column = column.cast(pa.int8())
    return column.cast(pa.float64(), safe=False).fill_null(np.nan).to_numpy(zero_copy_only=False)


def _has_integers(file: pq.ParquetFile, column: str) -> bool:
    schema = file.schema_arrow
    return schema.names.count(column) == 1 and pa.types.is_integer(schema.field(column).type)


def _runs(file: pq.ParquetFile, columns: list[str]) -> Iterator[tuple[int, ...]]:
    """(first row, value per column) of runs of equal rows; a batch begins a new run, and null is -1."""
    before = 0
    for batch in file.iter_batches(BATCH, columns=columns, use_threads=False):
        values = np.stack([batch[c].cast(pa.int64()).fill_null(-1).to_numpy() for c in columns])
        cuts = np.flatnonzero((values[:, 1:] != values[:, :-1]).any(axis=0)) + 1
        for at in (0, *cuts.tolist()):
            yield before + at, *values[:, at].tolist()
        before += batch.num_rows


# Reading


def read_columns(path: Path, start: int, count: int, columns: tuple[str, ...], limits: Limits = LIMITS) -> pa.Table:
    """Those of some columns that are there, of rows start .. start + count of a Parquet file.

    Raises RowsError, also for more rows, or more values of a column, than an episode may have.
    """
    check(limits.excess("max_rows", count, f"{path.name}: rows"))
    parts: list[pa.RecordBatch] = []
    num_values: Counter[str] = Counter()
    for batch in _batches(path, start, count, columns, BATCH, limits):
        for name, column in zip(batch.schema.names, batch.columns, strict=True):
            num_values[name] += _num_values(column)
            check(limits.excess("max_values", num_values[name], f"{path.name}: values of {name}"))
        parts.append(batch)
    if not parts:
        raise RowsError(f"{path.name}: no row {start}")
    return pa.Table.from_batches(parts)


def _num_values(column: pa.Array) -> int:
    """Single values of a column of lists of any depth."""
    while _is_list(column.type):
        column = column.flatten()
    return len(column)


def read_pictures(source: Source, uri: str, start: int, count: int, column: str) -> Iterator[ArrayPicture]:
    """Pictures of some rows: encoded in them, or in files that they name. Raises RowsError or VideoError."""
    row, path = start, source.resolve(uri)
    # Few rows at a time: pictures of a whole episode may not fit into memory
    for batch in _batches(path, start, count, (column,), PICTURE_BATCH, source.config.limits):
        try:
            values = batch[column].to_pylist()
        except PARQUET_ERRORS as e:
            raise RowsError(f"{column} in row {row} of {uri}: {first_line(e)}") from e
        for value in values:
            what = f"{column} in row {row} of {uri}"
            yield decode_picture(_picture_bytes(source, uri, value, what), what, source.config.limits)
            row += 1


def _picture_bytes(source: Source, uri: str, value: Any, what: str) -> bytes:
    """The bytes of an encoded picture in a cell of a table, or in the file that the cell names. Raises VideoError."""
    data, path = _bytes_and_path(value)
    if data:
        return data
    if not isinstance(path, str) or not path:
        raise VideoError(f"{what} has no picture")
    # The path counts from the root, or from the table's folder
    for candidate in (path, f"{uri.rpartition('/')[0]}/{path}"):
        if candidate in source.files:
            return _picture_file(source, candidate, what)
    raise VideoError(f"{what} has no picture, and {path} is no file of the dataset")


def _bytes_and_path(value: Any) -> tuple[Any, Any]:
    """A cell is a struct of both, of which one is null, or the bytes alone."""
    if isinstance(value, dict):
        return value.get("bytes"), value.get("path")
    return value, None


def _picture_file(source: Source, uri: str, what: str) -> bytes:
    size = source.files[uri].size
    if problem := source.config.limits.excess("max_chunk_bytes", size, f"{what}: bytes of {uri}"):
        raise VideoError(problem, "over_limit")
    return source.resolve(uri).read_bytes()


def picture_columns(file: pq.ParquetFile) -> frozenset[str]:
    """Columns of bytes, or of structs with bytes or a path: what encoded pictures are stored as."""
    return frozenset(f.name for f in file.schema_arrow if _holds_pictures(f.type))


def _holds_pictures(type_: pa.DataType) -> bool:
    if pa.types.is_struct(type_):
        names = {f.name: f.type for f in type_}
        return _is_bytes(names["bytes"]) if "bytes" in names else "path" in names
    return _is_bytes(type_)


def _is_bytes(type_: pa.DataType) -> bool:
    return pa.types.is_binary(type_) or pa.types.is_large_binary(type_)


def _batches(
    path: Path, start: int, count: int, columns: tuple[str, ...], size: int, limits: Limits
) -> Iterator[pa.RecordBatch]:
    """Some columns, where they are there, of rows start .. start + count. Raises RowsError."""
    try:
        with pq.ParquetFile(path) as file:
            present = _present(path, file.schema_arrow.names, columns)
            # A file of v3 holds many episodes: row groups of the others are not read
            groups, at = _row_groups(file, start, count)
            for batch in batches(file, path, present, limits, size, groups):
                # Groups begin before the rows and end after them, and so may batches
                begin, end = max(start - at, 0), min(start + count - at, batch.num_rows)
                if begin < end:
                    yield batch.slice(begin, end - begin)
                at += batch.num_rows
                if at >= start + count:
                    break
    except RowsError:
        raise
    except PARQUET_ERRORS as e:
        raise RowsError(f"{path.name}: {first_line(e)}") from e


def _row_groups(file: pq.ParquetFile, start: int, count: int) -> tuple[list[int], int]:
    """The row groups that hold some of rows start .. start + count, and the number of the first row in them."""
    ends = np.cumsum([file.metadata.row_group(i).num_rows for i in range(file.num_row_groups)])
    first, last = np.searchsorted(ends, [start, start + count - 1], side="right")
    first_row = int(ends[first - 1]) if first else 0
    return list(range(first, last + 1)), first_row


def _present(path: Path, names: list[str], columns: tuple[str, ...]) -> list[str]:
    """Those of some columns that a table has. Raises RowsError for one that it has several times."""
    present = [column for column in columns if column in names]
    for column in present:
        if names.count(column) > 1:
            raise RowsError(f"{path.name}: column {column} is there {names.count(column)} times")
    return present


def vector(rows: pa.Table, names: tuple[str, ...]) -> NumberColumn | None:
    """The first of some columns that holds numbers; raises RowsError when its rows differ in length."""
    for name in names:
        if name not in rows.schema.names:
            continue
        column = rows[name].combine_chunks()
        flat = _flattened(column, name)
        # A column of single whole numbers counts something; it is no vector
        is_vector = _is_list(column.type) and pa.types.is_integer(flat.type)
        if is_vector or pa.types.is_floating(flat.type):
            numbers = np.asarray(flat.to_numpy(zero_copy_only=False), np.float64)
            # A column whose lists are all empty says nothing
            if numbers.size:
                return NumberColumn(name, numbers.reshape(len(column), -1))
    return None


def _flattened(column: pa.Array, name: str) -> pa.Array:
    """The values of a column of lists of any depth. Raises RowsError when its rows differ in length."""
    while _is_list(column.type):
        is_ragged = not pa.types.is_fixed_size_list(column.type) and len(column.value_lengths().unique()) > 1
        if column.null_count or is_ragged:
            raise RowsError(f"column {name}: rows of different length")
        column = column.flatten()
    return column


def _is_list(type_: pa.DataType) -> bool:
    return pa.types.is_list(type_) or pa.types.is_large_list(type_) or pa.types.is_fixed_size_list(type_)


def dimension_names(feature: dict[str, Any] | None) -> list[str]:
    """Names of a feature's dimensions; info.json has a list, or a mapping that holds lists or places, or nothing."""
    names = feature.get("names") if isinstance(feature, dict) else None
    if isinstance(names, list):
        return [str(name) for name in names]
    return _names_in_mapping(names) if isinstance(names, dict) else []


def _names_in_mapping(names: dict[str, Any]) -> list[str]:
    """Either each name's place, or lists: the names of one part each, which tells those of several parts apart."""
    if all(type(place) is int for place in names.values()):
        return [str(name) for name in sorted(names, key=names.__getitem__)]
    parts = {part: listed for part, listed in names.items() if isinstance(listed, list)}
    has_several = len(parts) != 1
    return [f"{part}.{name}" if has_several else str(name) for part, listed in parts.items() for name in listed]
