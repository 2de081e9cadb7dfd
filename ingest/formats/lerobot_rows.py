"""Rows of LeRobot episodes: where they are, what they say of task and outcome; their pictures, state and action."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import repeat
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from ingest.episode import names_of
from ingest.formats import lerobot_meta
from ingest.formats.folders import object_of
from ingest.formats.lerobot_meta import EPISODE_FILE, MAX_EPISODE, LerobotListing, locate
from ingest.formats.side_files import read_json
from ingest.formats.tables import batches, is_list, numbers, opened, ranges, side_by_side, vectors
from ingest.media.frames import VideoError
from ingest.media.picture import ArrayPicture, decode_picture
from ingest.outcomes import NO_EVIDENCE, OutcomeEvidence, fields_of, flag_of, known, reward_of
from ingest.reasons import DataError, Limits
from ingest.signals.naming import named_grippers, names_by_parts
from ingest.sources.files import Source

REWARD_KEYS = ("next.reward", "reward")
RUNS = 2  # times limits.max_episodes: episodes of one file, each as often as its rows do not stand together
PICTURE_BATCH = 16  # rows with pictures read at a time
FACT_BATCH = 1 << 12  # rows with texts read at a time

STATE_KEYS = ("observation.state", "state")
ACTION_KEYS = ("action", "actions")
PARTS_OF_STATE = ("observation.state.", "observation.states.", "state.", "states.")
PARTS_OF_ACTION = ("action.", "actions.")
BESIDE_STATE = ("observation.",)  # where a gripper may stand in a column of its own
NUMBERS = ("float16", "float32", "float64", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "bool")
MODALITY = "meta/modality.json"


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
    evidence: OutcomeEvidence = NO_EVIDENCE  # flags of success and the reward


def find_rows(dataset: LerobotListing, metadata: dict[int, dict[str, Any]]) -> dict[int, EpisodeRows]:
    """Where the rows of each episode are, by the layout that is on disk."""
    if dataset.version == "v3.0":
        return _rows_v3(dataset, metadata)
    # One data file per episode: those that the metadata lists, and those that it does not
    named = {int(match[1]) for match in map(EPISODE_FILE.match, dataset.source.files) if match}
    uris: dict[int, str] = {}
    for episode in filter(dataset.wants, sorted({number for number in named if number < MAX_EPISODE}.union(metadata))):
        if uri := locate(dataset, "data_path", lerobot_meta.v2_numbers(dataset, episode)):
            uris[episode] = uri
    # All files that are needed are fetched together, which a remote source does several at a time
    dataset.source.fetch(uris.values())
    rows = {}
    for episode, uri in uris.items():
        try:
            [(_, rows[episode])] = _episodes_of(dataset, uri, is_one=True)
        except DataError as e:
            dataset.unusable(e.reason, str(e), episode, file=uri)
    return rows


def _rows_v3(dataset: LerobotListing, metadata: dict[int, dict[str, Any]]) -> dict[int, EpisodeRows]:
    """Row ranges by reading which episode each row says it is of; pointers in the metadata are not trusted.

    But they say which files of a remote source to look into first. The others are only fetched when that does not find
    all episodes that are asked for.
    """
    rows: dict[int, EpisodeRows] = {}
    uris = lerobot_meta.v3_data_files(dataset)
    selected = {episode: row for episode, row in metadata.items() if dataset.wants(episode)}
    # Without a selection all files are read, and pointers are not needed
    pointers = filter(None, map(lerobot_meta.v3_pointer, selected.values(), repeat("data")))
    is_part = len(selected) < len(metadata)
    pointed_at = {locate(dataset, "data_path", p) for p in pointers} if is_part else set(uris)
    _read_rows_v3(dataset, [uri for uri in uris if uri in pointed_at], rows)
    if not selected.keys() <= rows.keys():
        _read_rows_v3(dataset, [uri for uri in uris if uri not in pointed_at], rows)
    return rows


def _read_rows_v3(dataset: LerobotListing, uris: list[str], rows: dict[int, EpisodeRows]) -> None:
    """Put the episodes of some data files into `rows`, with findings about rows of none and about a second place."""
    dataset.source.fetch(uris)
    for uri in uris:
        try:
            episodes = _episodes_of(dataset, uri)
        except DataError as e:
            dataset.warn(e.reason, str(e), file=uri)
            if e.reason == "lfs_pointer":
                dataset.pointers.add(uri)
            continue
        for episode, part in episodes:
            if not 0 <= episode < MAX_EPISODE:
                detail = f"{part.num_rows} rows, from row {part.row_start} on, are of no episode ({episode})"
                dataset.warn("unreadable_data", detail, file=uri)
            elif rows.setdefault(episode, part) is not part:
                dataset.unusable("row_order", "its rows do not stand together in one data file", episode, file=uri)


def _episodes_of(dataset: LerobotListing, uri: str, is_one: bool = False) -> list[tuple[int, EpisodeRows]]:
    """Episodes of one file, in order of rows: one of them more than once where its rows do not stand together.

    `is_one`: all rows are one episode's, whatever they say. Raises DataError.
    """
    path, limits = dataset.source.resolve(uri), dataset.source.config.limits
    flag_names, found = fields_of(dataset.source.config.success_field), list[tuple[int, EpisodeRows]]()
    with opened(path) as file:
        count, schema = file.metadata.num_rows, file.schema_arrow
        has_tasks = _has_numbers(schema, "task_index", only_whole=True)
        if is_one:
            limits.check("max_rows", count, f"{path.name}: rows")
            stretches = [(0, 0)]
        elif not _has_numbers(schema, "episode_index", only_whole=True):
            raise DataError("it has no column episode_index of whole numbers")
        else:
            stretches = _stretches(file, limits)
        numbers = [name for name in dict.fromkeys((*flag_names, *REWARD_KEYS)) if _has_numbers(schema, name)]
        columns = list(dict.fromkeys(["task_index"][: int(has_tasks)] + numbers))
        ends = [*(start for _, start in stretches[1:]), count][: len(stretches)]
        places = [(start, end - start) for (_, start), end in zip(stretches, ends, strict=True)]
        # A file may claim any number of rows of one episode, which is not read then
        first_rows = [(start, min(num_rows, limits.max_rows)) for start, num_rows in places]
        # Arrow makes no empty list of JSON, which a column of language may be
        empty = pa.schema([schema.field(name) for name in columns]).empty_table()
        tables = ranges(file, first_rows, columns) if columns and count else [empty] * len(places)
        facts, pictures = _facts(dataset, file, ends), picture_columns(schema)
        for (episode, _), place, fact, table in zip(stretches, places, facts, tables, strict=True):
            evidence = _evidence(table.select(numbers), flag_names)
            tasks = table["task_index"].unique().to_pylist() if has_tasks else ()
            known_tasks = tuple(task for task in tasks if task is not None and task >= 0)
            found.append((episode, EpisodeRows(uri, *place, known_tasks, has_tasks, pictures, fact, evidence)))
    return found


def _stretches(file: pq.ParquetFile, limits: Limits) -> list[tuple[int, int]]:
    """Rows of one episode that stand together: the episode and the first row of each. Raises DataError."""
    found, at = list[tuple[int, int]](), 0
    for batch in batches(file, ["episode_index"]):
        episodes = batch[0].cast(pa.int64()).fill_null(-1).to_numpy()
        before = np.array([found[-1][0]]) if found else episodes[:1] - 1
        starts = np.flatnonzero(np.diff(episodes, prepend=before))
        found += zip(episodes[starts].tolist(), (starts + at).tolist(), strict=True)
        limits.check("max_episodes", len(found), "stretches of rows of one episode", RUNS)
        at += batch.num_rows
    return found


def _evidence(table: pa.Table, flag_names: Sequence[str]) -> OutcomeEvidence:
    values = {name: known(_single_numbers(table[name].combine_chunks())) for name in table.column_names}
    flags = filter(None, (flag_of(name, values[name]) for name in flag_names if name in values))
    rewards = filter(None, (reward_of(name, values[name]) for name in REWARD_KEYS if name in values))
    return OutcomeEvidence(flags=tuple(flags), reward=next(rewards, None))


def _facts(dataset: LerobotListing, file: pq.ParquetFile, ends: list[int]) -> list[dict[str, Any]]:
    """What the row before each of `ends` says in the columns that the registry has for success, group and language."""
    config, names = dataset.source.config, file.schema_arrow.names
    registered = dict.fromkeys([config.success_field, config.group_field or "", *config.keys.language])
    columns = [column for column in registered if names.count(column) == 1]
    # An episode at the table's beginning that has no rows has no last one
    if not columns or 0 in ends:
        return [{} for _ in ends]
    return [table.to_pylist()[0] for table in ranges(file, [(end - 1, 1) for end in ends], columns, FACT_BATCH)]


def _has_numbers(schema: pa.Schema, column: str, only_whole: bool = False) -> bool:
    """One number or boolean per row, by itself or in a list of one; `only_whole`: a whole number by itself."""
    if schema.names.count(column) != 1:
        return False
    type_ = schema.field(column).type
    if only_whole:
        return pa.types.is_integer(type_)
    type_ = type_.value_type if is_list(type_) else type_
    return pa.types.is_boolean(type_) or pa.types.is_integer(type_) or pa.types.is_floating(type_)


def _single_numbers(column: pa.Array) -> np.ndarray:
    """float64 [n], NaN for null, and for all where rows hold several."""
    if is_list(column.type):
        is_single = set(column.value_lengths().unique().to_pylist()) == {1}
        if column.null_count or not is_single:
            return np.full(len(column), np.nan)
        column = column.flatten()
    if pa.types.is_boolean(column.type):
        column = column.cast(pa.int8())
    return column.cast(pa.float64(), safe=False).fill_null(np.nan).to_numpy(zero_copy_only=False)


# Pictures


def picture_columns(schema: pa.Schema) -> frozenset[str]:
    """Columns of bytes, or of structs with bytes or a path: what encoded pictures are stored as."""
    return frozenset(f.name for f in schema if _holds_pictures(f.type))


def _holds_pictures(type_: pa.DataType) -> bool:
    if pa.types.is_struct(type_):
        names = {f.name: f.type for f in type_}
        return _holds_pictures(names["bytes"]) if "bytes" in names else "path" in names
    return pa.types.is_binary(type_) or pa.types.is_large_binary(type_)


def read_pictures(source: Source, uri: str, start: int, count: int, column: str) -> Iterator[ArrayPicture]:
    """Pictures of some rows: encoded in them, or in files that they name. Raises DataError."""
    # Few rows at a time: pictures of a whole episode may not fit into memory
    places = [(row, min(PICTURE_BATCH, start + count - row)) for row in range(start, start + count, PICTURE_BATCH)]
    with opened(source.resolve(uri)) as file:
        for (first, _), table in zip(places, ranges(file, places, [column], PICTURE_BATCH), strict=False):
            for row, cell in enumerate(table[column].to_pylist(), first):
                what = f"{column} in row {row} of {uri}"
                yield decode_picture(_picture_bytes(source, uri, cell, what), what, source.config.limits)


def _picture_bytes(source: Source, uri: str, cell: Any, what: str) -> bytes:
    """The bytes of an encoded picture in a cell, or in the file that it names. Raises DataError.

    A cell is a struct of both, of which one is null, or the bytes alone.
    """
    data, path = (cell.get("bytes"), cell.get("path")) if isinstance(cell, dict) else (cell, None)
    if data:
        return data
    if not isinstance(path, str) or not path:
        raise VideoError(f"{what} has no picture")
    # The path counts from the root, or from the table's folder
    there = [p for p in (path, f"{uri.rpartition('/')[0]}/{path}") if p in source.files]
    if not there:
        raise VideoError(f"{what} has no picture, and {path} is no file of the dataset")
    source.config.limits.check("max_chunk_bytes", source.files[there[0]].size, f"{what}: bytes of {there[0]}")
    return source.resolve(there[0]).read_bytes()


def dimension_names(feature: Any) -> Sequence[str]:
    """Names of a feature's dimensions; info.json has a list, or a mapping that holds lists or places, or nothing."""
    stated = object_of(feature).get("names")
    if isinstance(stated, dict) and {*map(type, stated.values())} <= {int}:
        return list(map(str, sorted(stated, key=stated.__getitem__)))
    of_parts = stated if isinstance(stated, dict) else {"": stated}
    parts = {part: listed for part, listed in of_parts.items() if isinstance(listed, list)}
    # A list may be one of lists; the names of several parts are told apart by their parts
    named = [(part, n) for part, of in parts.items() for one in of for n in (one if isinstance(one, list) else [one])]
    return [str(name) if len(parts) == 1 else f"{part}.{name}" for part, name in named]


# State and action, and a name for each of their dimensions. Most sets have one column of each; some have one column for
# each part (`observation.state.gripper_position`), or keep a gripper in a column beside the state. Names are in
# info.json; GR00T's sets have them in meta/modality.json, as slices


def signal_columns(info: Mapping[str, Any]) -> tuple[str, ...]:
    """The columns that state and action may be read from."""
    parts = _numeric(info["features"], (*PARTS_OF_STATE, *PARTS_OF_ACTION))
    beside = [name for name in _numeric(info["features"], BESIDE_STATE) if named_grippers([name])]
    return tuple(dict.fromkeys((*STATE_KEYS, *ACTION_KEYS, *parts, *beside)))


def read_signals(
    source: Source, info: Mapping[str, Any], rows: pa.Table
) -> tuple[pa.Table | None, pa.Table | None, Literal["name", "modality.json"]]:
    """State and action among an episode's rows, and where their names are from. Raises DataError."""
    state = _vector(rows, info["features"], STATE_KEYS, PARTS_OF_STATE, BESIDE_STATE)
    action = _vector(rows, info["features"], ACTION_KEYS, PARTS_OF_ACTION, ())
    if named_grippers([*names_of(state), *names_of(action)]):
        return state, action, "name"
    # Names such as motor_12 say nothing, but GR00T's file beside may say which of them are a hand
    if MODALITY not in source.noted:
        try:
            source.noted[MODALITY] = object_of(read_json(source, MODALITY)) if MODALITY in source.files else {}
        except DataError:
            source.noted[MODALITY] = {}  # the listing has a finding of that
    modality = source.noted[MODALITY]
    named = _named_by_parts(state, modality.get("state")), _named_by_parts(action, modality.get("action"))
    return (*named, "modality.json" if named != (state, action) else "name")


def _numeric(features: Mapping[str, Any], prefixes: Sequence[str]) -> list[str]:
    """Features of numbers whose names begin so."""
    begin = [name for name in features if name.startswith(tuple(prefixes))]
    return [name for name in begin if object_of(features[name]).get("dtype") in NUMBERS]


def _vector(
    rows: pa.Table, features: Mapping[str, Any], keys: tuple[str, ...], parts: Sequence[str], beside: Sequence[str]
) -> pa.Table | None:
    """The first of `keys` that has numbers, else all parts; with the grippers that stand beside it."""
    whole = first_vector(rows, features, keys)
    columns = [whole] if whole is not None else _parts(rows, features, _numeric(features, parts))
    if not named_grippers([name for column in columns for name in column.column_names]):
        apart = [name for name in _numeric(features, beside) if named_grippers([name]) and name not in keys]
        columns += _parts(rows, features, [name for name in apart if not name.startswith(tuple(parts))])
    return side_by_side(columns)


def first_vector(rows: pa.Table, features: Mapping[str, Any], names: Iterable[str]) -> pa.Table | None:
    """The first of some columns that holds numbers, with names where info.json has one for each dimension."""
    for name in names:
        values = vectors(rows[name], name) if name in rows.column_names else None
        if values is not None:
            stated = dimension_names(features.get(name))
            return numbers(values, stated if len(stated) == values.shape[1] else ())
    return None


def _parts(rows: pa.Table, features: Mapping[str, Any], names: Iterable[str]) -> list[pa.Table]:
    """Columns that are parts of one vector: the names of dimensions begin with that of their part."""
    tables = []
    for name in names:
        if (table := first_vector(rows, features, [name])) is None:
            continue
        prefixes = [p for p in (*PARTS_OF_STATE, *PARTS_OF_ACTION, *BESIDE_STATE) if name.startswith(p)]
        part = name.removeprefix(max(prefixes, key=len, default=""))  # such as gripper_position
        inner = [f"{part}.{own or k}" for k, own in enumerate(table.column_names)]
        tables.append(table.rename_columns([part] if len(inner) == 1 else inner))
    return tables


def _named_by_parts(table: pa.Table | None, parts: Any) -> pa.Table | None:
    """With the names of modality.json's slices, where they name a gripper or a hand."""
    if table is None or not isinstance(parts, dict):
        return table
    names = names_by_parts(parts, table.num_columns)
    return table.rename_columns(names) if named_grippers(names) else table
