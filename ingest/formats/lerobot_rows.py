"""Rows of LeRobot episodes: where they are, and what they say of state and gripper."""

from bisect import bisect_left
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from ingest.episode import RowsError
from ingest.formats.lerobot_meta import (
    DATA_V2,
    DATA_V3,
    EPISODE_FILE,
    MAX_EPISODE,
    PARQUET_ERRORS,
    Dataset,
    first_line,
    locate,
    unreadable,
    v2_numbers,
    v3_data_files,
    whole,
)
from ingest.media.picture import ArrayPicture, decode_picture
from ingest.media.video import VideoError
from ingest.sources.files import Source

STATE_KEYS = ("observation.state", "state")
ACTION_KEYS = ("action", "actions")
TIME_KEYS = ("timestamp",)
BATCH = 1 << 16  # rows read at a time
PICTURE_BATCH = 16  # rows with pictures read at a time
MAX_ROWS = 1 << 20  # of one episode: ten hours
MAX_PARTS = 1 << 18  # runs of rows of one episode, in one file
MAX_PICTURE_BYTES = 1 << 26


@dataclass(frozen=True)
class Rows:
    """Where an episode's rows are."""

    uri: str
    row_start: int
    num_rows: int
    task_indices: tuple[int, ...]  # in order of appearance
    row_tasks: bool  # do the rows name their task at all
    pictures: frozenset[str] = frozenset()  # columns that hold encoded pictures
    facts: Mapping[str, Any] = field(default_factory=dict)  # of the columns that the registry names; in the last row


def rows_v2(ds: Dataset, metadata: dict[int, dict[str, Any]]) -> dict[int, Rows]:
    """One data file per episode: those that the metadata lists, and those that it does not."""
    found = {e for u in ds.source.files if (m := EPISODE_FILE.match(u)) and (e := int(m[1])) < MAX_EPISODE}
    episodes = filter(ds.wants, sorted({*metadata, *found}))
    uris = {e: uri for e in episodes if (uri := locate(ds, "data_path", DATA_V2, **v2_numbers(ds, e)))}
    ds.source.fetch(uris.values())
    rows = {}
    for episode, uri in uris.items():
        try:
            with pq.ParquetFile(ds.source.resolve(uri)) as file:
                count = file.metadata.num_rows
                has_tasks = _has_integers(file, "task_index")
                named = has_tasks and count <= MAX_ROWS
                tasks = file.read(["task_index"])["task_index"].unique().to_pylist() if named else ()
                known = tuple(t for t in tasks if t is not None)
                (facts,) = _facts(ds, file, [count])
                rows[episode] = Rows(uri, 0, count, known, has_tasks, picture_columns(file), facts)
        except PARQUET_ERRORS as e:
            reason, detail = unreadable(ds.source, uri, e)
            ds.unusable(reason, detail, episode, file=uri)
    return rows


def rows_v3(ds: Dataset, metadata: dict[int, dict[str, Any]]) -> dict[int, Rows]:
    """Row ranges by reading which episode each row says it is of; pointers in the metadata are not trusted.

    But they say which files of a remote source to look into first. The others are only fetched when that does not find
    all episodes that are asked for.
    """
    rows: dict[int, Rows] = {}
    uris = v3_data_files(ds)
    asked = [e for e in metadata if ds.wants(e)]
    first = uris if len(asked) == len(metadata) else _pointed_at(ds, uris, {e: metadata[e] for e in asked})
    _read_rows_v3(ds, first, rows)
    if any(e not in rows for e in asked):
        _read_rows_v3(ds, [u for u in uris if u not in first], rows)
    return rows


def _pointed_at(ds: Dataset, uris: list[str], metadata: dict[int, dict[str, Any]]) -> list[str]:
    """Of some data files those that the metadata of some episodes names."""
    found = set()
    for row in metadata.values():
        chunk, file = whole(row.get("data/chunk_index")), whole(row.get("data/file_index"))
        if chunk is not None and file is not None:
            found.add(locate(ds, "data_path", DATA_V3, chunk_index=chunk, file_index=file))
    return [u for u in uris if u in found]


def _read_rows_v3(ds: Dataset, uris: list[str], rows: dict[int, Rows]) -> None:
    ds.source.fetch(uris)
    for uri in uris:
        try:
            found = _episodes_of(ds, uri)
        except (*PARQUET_ERRORS, RowsError) as e:
            ds.warn(*unreadable(ds.source, uri, e), file=uri)
            continue
        for episode, part in found:
            if not 0 <= episode < MAX_EPISODE:
                detail = f"{part.num_rows} rows, from row {part.row_start} on, are of no episode ({episode})"
                ds.warn("unreadable_data", detail, file=uri)
            elif episode in rows:
                ds.unusable("row_order", "its rows do not stand together in one data file", episode, file=uri)
            else:
                rows[episode] = part


def _episodes_of(ds: Dataset, uri: str) -> list[tuple[int, Rows]]:
    with pq.ParquetFile(ds.source.resolve(uri)) as file:
        if not _has_integers(file, "episode_index"):
            raise RowsError("it has no column episode_index of whole numbers")
        total, has_tasks, pictures = file.metadata.num_rows, _has_integers(file, "task_index"), picture_columns(file)
        parts: list[tuple[int, int, list[int]]] = []  # episode, first row, tasks
        for start, episode, *tasks in _runs(file, ["episode_index", *(["task_index"] if has_tasks else [])]):
            if not parts or parts[-1][0] != episode:
                if len(parts) == MAX_PARTS:
                    raise RowsError(f"it has more than {MAX_PARTS} episodes")
                parts.append((episode, start, []))
            parts[-1][2].extend(t for t in tasks if t not in parts[-1][2])
        ends = [start for _, start, _ in parts[1:]] + [total]
        facts = _facts(ds, file, ends)
    return [
        (episode, Rows(uri, start, end - start, tuple(tasks), has_tasks, pictures, known))
        for (episode, start, tasks), end, known in zip(parts, ends, facts, strict=True)
    ]


def _facts(ds: Dataset, file: pq.ParquetFile, ends: list[int]) -> list[dict[str, Any]]:
    """What the row before each of `ends` says in the columns that the registry has for success, group and language."""
    config = ds.source.config
    wanted = (config.success_field, *([config.group_field] if config.group_field else []), *config.keys.language)
    columns = [c for c in dict.fromkeys(wanted) if file.schema_arrow.names.count(c) == 1]
    if not columns or 0 in ends:
        return [{} for _ in ends]
    last, facts, before = [end - 1 for end in ends], [], 0
    for batch in file.iter_batches(BATCH, columns=columns):
        inside = last[len(facts) : bisect_left(last, before + batch.num_rows)]
        facts += batch.take(pa.array([row - before for row in inside], pa.int64())).to_pylist()
        before += batch.num_rows
    return facts


def _has_integers(file: pq.ParquetFile, column: str) -> bool:
    schema = file.schema_arrow
    return schema.names.count(column) == 1 and pa.types.is_integer(schema.field(column).type)


def _runs(file: pq.ParquetFile, columns: list[str]) -> Iterator[tuple[int, ...]]:
    """(first row, value per column) of runs of equal rows; a batch begins a new run, and null is -1."""
    before = 0
    for batch in file.iter_batches(BATCH, columns=columns):
        values = np.stack([pc.fill_null(batch[c].cast(pa.int64()), -1).to_numpy() for c in columns])
        cuts = np.flatnonzero((values[:, 1:] != values[:, :-1]).any(axis=0)) + 1
        for at in (0, *cuts.tolist()):
            yield before + at, *values[:, at].tolist()
        before += batch.num_rows


# Reading


def read_rows(path: Path, start: int, count: int) -> pa.Table:
    """State, action and time of rows start .. start + count of a Parquet file, holding a batch at a time in memory."""
    return read_columns(path, start, count, (*STATE_KEYS, *ACTION_KEYS, *TIME_KEYS))


def read_columns(path: Path, start: int, count: int, columns: tuple[str, ...]) -> pa.Table:
    """Those of some columns that are there, of some rows. Raises RowsError."""
    batches = list(_batches(path, start, count, columns, BATCH))
    if not batches:
        raise RowsError(f"{path.name}: no row {start}")
    return pa.Table.from_batches(batches)


def read_pictures(source: Source, uri: str, start: int, count: int, column: str) -> Iterator[ArrayPicture]:
    """Pictures of some rows: encoded in them, or in files that they name. Raises RowsError or VideoError."""
    row = start
    for batch in _batches(source.resolve(uri), start, count, (column,), PICTURE_BATCH):
        try:
            values = batch[column].to_pylist()
        except PARQUET_ERRORS as e:
            raise RowsError(f"{column} in row {row} of {uri}: {first_line(e)}") from e
        for value in values:
            what = f"{column} in row {row} of {uri}"
            data, path = (value.get("bytes"), value.get("path")) if isinstance(value, dict) else (value, None)
            if not data:
                data = _picture_file(source, uri, path, what)
            yield decode_picture(data, what)
            row += 1


def _picture_file(source: Source, uri: str, path: Any, what: str) -> bytes:
    """Bytes of a picture file named by its path from the root, or from the table's folder."""
    candidates = [path, f"{uri.rpartition('/')[0]}/{path}"] if isinstance(path, str) and path else []
    for candidate in candidates:
        if candidate in source.files:
            if source.files[candidate].size > MAX_PICTURE_BYTES:
                raise VideoError(f"{what}: {candidate} has {source.files[candidate].size} bytes")
            return source.resolve(candidate).read_bytes()
    raise VideoError(f"{what} has no picture" + (f", and {path} is no file of the dataset" if candidates else ""))


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


def _batches(path: Path, start: int, count: int, columns: tuple[str, ...], size: int) -> Iterator[pa.RecordBatch]:
    """Some columns, where they are there, of rows start .. start + count. Raises RowsError."""
    try:
        with pq.ParquetFile(path) as file:
            ends = np.cumsum([file.metadata.row_group(i).num_rows for i in range(file.num_row_groups)])
            first, last = np.searchsorted(ends, [start, start + count - 1], side="right")
            names = file.schema_arrow.names
            there = [n for n in columns if n in names]
            if twice := [n for n in there if names.count(n) > 1]:
                raise RowsError(f"{path.name}: column {twice[0]} is there {names.count(twice[0])} times")
            at = int(ends[first - 1]) if first else 0
            for batch in file.iter_batches(size, list(range(first, last + 1)), there):
                begin, end = max(start - at, 0), min(start + count - at, batch.num_rows)
                if begin < end:
                    yield batch.slice(begin, end - begin)
                at += batch.num_rows
                if at >= start + count:
                    break
    except PARQUET_ERRORS as e:
        raise RowsError(f"{path.name}: {first_line(e)}") from e


def vector(rows: pa.Table, keys: tuple[str, ...]) -> tuple[str, np.ndarray] | None:
    """The first of some columns that holds numbers, as float64 [n, d]; raises RowsError when rows differ in length."""
    for key in keys:
        if key not in rows.schema.names:
            continue
        values = flat = rows[key].combine_chunks()
        while _is_list(flat.type):
            ragged = not pa.types.is_fixed_size_list(flat.type) and len(flat.value_lengths().unique()) > 1
            if flat.null_count or ragged:
                raise RowsError(f"column {key}: rows of different length")
            flat = flat.flatten()
        if pa.types.is_floating(flat.type) or (_is_list(values.type) and pa.types.is_integer(flat.type)):
            numbers = np.asarray(flat.to_numpy(zero_copy_only=False), np.float64)
            if numbers.size:
                return key, numbers.reshape(len(values), -1)
    return None


def _is_list(type_: pa.DataType) -> bool:
    return pa.types.is_list(type_) or pa.types.is_large_list(type_) or pa.types.is_fixed_size_list(type_)


def dimension_names(feature: dict[str, Any] | None) -> list[str]:
    """Names of a feature's dimensions; info.json has a list, or a mapping that holds one, or nothing."""
    names = feature.get("names") if isinstance(feature, dict) else None
    if isinstance(names, dict):
        names = next(iter(names.values()), None)
    return [str(n) for n in names] if isinstance(names, list) else []
