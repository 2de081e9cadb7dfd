"""The class of a table, and how tables are written down."""

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from itertools import chain

import pyarrow as pa


@dataclass(frozen=True)
class Column:
    name: str
    type: pa.DataType
    comment: str
    # False for a place or a time: the same data elsewhere, or later, is the same corpus
    digest: bool = True
    since: int = 0  # the version of the schema that brought it; 0: one of those before 15


@dataclass(frozen=True)
class Table:
    """One lake table. `key` is unique (checked at each publish: the lake has no constraints of its own).

    `must`: SQL conditions that no row breaks; one that is null (of a value that is not known) is
    not broken. `compact`: its files are made small, at some cost of writing them: for columns that
    hold most of a lake's bytes.
    """

    name: str
    comment: str
    key: tuple[str, ...]
    columns: tuple[Column, ...]
    content: bool = True
    partition: tuple[str, ...] = ()
    must: tuple[str, ...] = ()
    compact: bool = False
    schema: pa.Schema = field(init=False, repr=False)

    def __post_init__(self) -> None:
        names = [c.name for c in self.columns]
        missing = [k for k in (*self.key, *self.partition) if k not in names]
        if missing or len(set(names)) != len(names):
            raise ValueError(
                f"table {self.name}: key or partition columns {missing} missing, or a name twice"
            )
        object.__setattr__(self, "schema", pa.schema([(c.name, c.type) for c in self.columns]))

    def rows(self, rows: list[dict]) -> pa.Table:
        """An Arrow table of this schema; a row lacking a column gets null, an unknown column is an error."""
        unknown = set(chain.from_iterable(rows)) - set(self.schema.names)
        if unknown:
            raise ValueError(f"table {self.name} has no column {sorted(unknown)}")
        return pa.Table.from_pylist(rows, schema=self.schema)

    def empty(self) -> pa.Table:
        return self.schema.empty_table()


TYPES: dict[str, pa.DataType] = {
    "str": pa.string(),
    "i64": pa.int64(),
    "i32": pa.int32(),
    "i16": pa.int16(),
    "u64": pa.uint64(),
    "f32": pa.float32(),
    "f64": pa.float64(),
    "bool": pa.bool_(),
    "bytes": pa.binary(),
    "time": pa.timestamp("us", tz="UTC"),
}
SQL_TYPES = {
    pa.string(): "VARCHAR",
    pa.int64(): "BIGINT",
    pa.int32(): "INTEGER",
    pa.int16(): "SMALLINT",
    pa.uint64(): "UBIGINT",
    pa.float32(): "REAL",
    pa.float64(): "DOUBLE",
    pa.bool_(): "BOOLEAN",
    pa.binary(): "BLOB",
    pa.timestamp("us", tz="UTC"): "TIMESTAMPTZ",
}
STRUCTS = {
    "camera_video": "camera str, uri str, start_frame i64",
    "native_step": "name str, start_frame i64, end_frame i64, kind str, completed bool, step i16, confidence f32, "
    "notes str",
    "stretch": "signal str, start_frame i64, end_frame i64, measured f64, usual f64, unit str, other_dataset str, "
    "other_episode i64, detail str",
    "episode_frame": "episode_index i64, frame_index i64",
    "picture": "episode_index i64, camera str, frame_index i64, edit str",
}
for _name, _fields in STRUCTS.items():
    TYPES[_name] = pa.struct(
        [(name, TYPES[type_]) for name, type_ in map(str.split, _fields.split(", "))]
    )
TYPES |= {f"list[{name}]": pa.list_(type_) for name, type_ in TYPES.items()}
WORDS = ("key", "partition", "compact", "event", "check")  # that begin lines which are no columns
# Columns that several tables have: a line of names alone
SHARED = {
    "dataset": Column("dataset", TYPES["str"], "dataset name"),
    "episode_index": Column("episode_index", TYPES["i64"], "episode of the dataset, from 0"),
    "chunk": Column("chunk", TYPES["i32"], "chunk of the episode: episode_index // chunk_size"),
    "camera": Column("camera", TYPES["str"], "camera key as in the source"),
    "frame_index": Column("frame_index", TYPES["i64"], "frame of the episode, from 0"),
    "label_run": Column("label_run", TYPES["str"], "label run that made the label: see label_runs"),
}


def sql_type(t: pa.DataType) -> str:
    """The type of DuckDB's that holds values of one of Arrow's."""
    if pa.types.is_list(t):
        return f"{sql_type(t.value_type)}[]"
    if pa.types.is_struct(t):
        return "STRUCT(" + ", ".join(f'"{f.name}" {sql_type(f.type)}' for f in t) + ")"
    return SQL_TYPES[t]


def tables(text: str, *, content: bool = True) -> tuple[Table, ...]:
    """Tables by their description. Example, with what each line says:

        keyframes: Pictures that are stored                   name and comment of the table
          key dataset, episode_index, frame_index; chunk      its key; behind `;` columns that are no part of it
          purpose str: why it is stored                       a column, its type and comment
          width_px i32: of the picture as it is stored,
              in pixels                                       a line that is further in goes on with the one before
          path str unhashed: where it lies                    its values are no content
          sharpness f32 since=15: 0..1                        version of the schema that brings it, then the lake's
          check width_px > 0                                  an SQL condition that no row breaks
          partition dataset                                   in place of dataset and chunk
          compact                                             its files are made small
          event                                               it is no content

    An empty line ends a table. Columns that several tables have (SHARED) need no line where the key
    names them: they come first. Elsewhere a line of their names alone is enough. Content with a
    column `chunk` is partitioned by dataset and chunk, unless `partition` says otherwise.
    """
    unbroken = re.sub(r"\n {3,}", " ", text)
    blocks = unbroken.strip("\n").split("\n\n")
    return tuple(_table(block.splitlines(), is_content=content) for block in blocks)


def _table(lines: list[str], *, is_content: bool) -> Table:
    """The table of its lines: the first is `name: comment`, each further one a clause (WORDS) or columns."""
    name, comment = lines[0].split(": ", 1)
    clauses: dict[str, list[str]] = {word: [] for word in WORDS}
    column_lines = []
    for line in map(str.strip, lines[1:]):
        word, _, value = line.partition(" ")
        if word in WORDS:
            clauses[word].append(value)
        else:
            column_lines.append(line)
    key, _, further_names = clauses["key"][0].partition("; ")
    columns = _columns(f"{key}, {further_names}", column_lines)
    default_partition = ("dataset", "chunk") if is_content and "chunk" in columns else ()
    return Table(
        name,
        comment,
        key=tuple(key.split(", ")),
        columns=tuple(columns.values()),
        content=is_content and not clauses["event"],
        partition=tuple(clauses["partition"]) or default_partition,
        must=tuple(clauses["check"]),
        compact=bool(clauses["compact"]),
    )


def _columns(first_names: str, lines: list[str]) -> dict[str, Column]:
    """Columns by name, as their lines say; before them those of `first_names` that are SHARED and no line has."""
    columns = {name: SHARED[name] for name in first_names.split(", ") if name in SHARED}
    for line in lines:
        declaration, colon, comment = line.partition(": ")
        if colon:
            described = [_column(declaration, comment)]
        else:
            described = [SHARED[name] for name in line.split(", ")]
        for column in described:
            columns.pop(column.name, None)
            columns[column.name] = column
    return columns


def _column(declaration: str, comment: str) -> Column:
    """Example: _column("path str unhashed since=15", "where it lies")."""
    name, type_name, *options = declaration.split(" ")
    since = [int(option.removeprefix("since=")) for option in options if option != "unhashed"]
    return Column(name, TYPES[type_name], comment, "unhashed" not in options, *since)


def without_episodes(
    tables: Mapping[str, pa.Table], episodes: Collection[int]
) -> dict[str, pa.Table]:
    """The tables without rows of some episodes; one whose rows are of none stays as it is."""
    remaining = dict(tables)
    for name, table in tables.items():
        if "episode_index" in table.schema.names:
            stays = [episode not in episodes for episode in table["episode_index"].to_pylist()]
            remaining[name] = table.filter(pa.array(stays, pa.bool_()))
    return remaining
