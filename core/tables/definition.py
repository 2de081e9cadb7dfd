"""The class of a table, and how tables are written down."""

import re
from dataclasses import dataclass, field

import pyarrow as pa


@dataclass(frozen=True)
class Column:
    name: str
    type: pa.DataType
    comment: str
    digest: bool = True  # False for a place or a time: the same data elsewhere, or later, is the same corpus
    since: int = 0  # the version of the schema that brought it; 0: one of those before 15


@dataclass(frozen=True)
class Table:
    """One lake table. `key` is unique (checked at each publish: the lake has no constraints of its own).

    `must`: SQL conditions that no row breaks; one that is null (of a value that is not known) is not broken.
    `compact`: its files are made small, at some cost of writing them: for columns that hold most of a lake's bytes.
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
            raise ValueError(f"table {self.name}: key or partition columns {missing} missing, or a name twice")
        object.__setattr__(self, "schema", pa.schema([(c.name, c.type) for c in self.columns]))

    def rows(self, rows: list[dict]) -> pa.Table:
        """An Arrow table of this schema; a row lacking a column gets null, an unknown column is an error."""
        unknown = {k for r in rows for k in r} - set(self.schema.names)
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
STRUCTS = {
    "camera_video": "camera str, uri str, start_frame i64",
    "native_step": "name str, start_frame i64, end_frame i64, kind str, completed bool, step i16, confidence f32, "
    "notes str",
    "episode_frame": "episode_index i64, frame_index i64",
    "picture": "episode_index i64, camera str, frame_index i64, edit str",
}
for _name, _fields in STRUCTS.items():
    TYPES[_name] = pa.struct([(name, TYPES[type_]) for name, type_ in map(str.split, _fields.split(", "))])
TYPES |= {f"list[{name}]": pa.list_(type_) for name, type_ in TYPES.items()}
# Columns that several tables have: a line of names alone
SHARED = {
    "dataset": Column("dataset", TYPES["str"], "dataset name"),
    "episode_index": Column("episode_index", TYPES["i64"], "episode of the dataset, from 0"),
    "chunk": Column("chunk", TYPES["i32"], "chunk of the episode: episode_index // chunk_size"),
    "camera": Column("camera", TYPES["str"], "camera key as in the source"),
    "frame_index": Column("frame_index", TYPES["i64"], "frame of the episode, from 0"),
    "label_run": Column("label_run", TYPES["str"], "label run that made the label: see label_runs"),
}


def tables(text: str, *, content: bool = True) -> tuple[Table, ...]:
    """Tables by their description: `name: comment`, and below it, two spaces further in, a line for each thing.

    `key` and `partition` with names of columns, `compact`, `event` (no content), `check` with a condition that no row
    breaks, names of columns that several tables have, or `column type: comment`. Behind the type may stand `unhashed`
    (its values are no content) and `since=15` (the version of the schema that brings it, which is then the lake's). A
    line that is still further in goes on with the one before.
    """
    found = []
    # Lines that were broken are put together again
    for block in re.sub(r"\n {3,}", " ", text).strip("\n").split("\n\n"):
        title, *lines = block.splitlines()
        name, comment = title.split(": ", 1)
        columns: list[Column] = []
        told: dict[str, list[str]] = {"key": [], "partition": [], "compact": [], "event": [], "check": []}
        for line in map(str.strip, lines):
            word, _, rest = line.partition(" ")
            head, colon, about = line.partition(": ")
            if word in told:
                told[word] += [rest] if word not in ("key", "partition") else rest.split(", ")
            elif not colon:
                columns += [SHARED[column] for column in line.split(", ")]
            else:
                ((column, type_, unhashed, since),) = re.findall(r"^(\w+) (\S+)( unhashed)?(?: since=(\d+))?$", head)
                columns.append(Column(column, TYPES[type_], about, not unhashed, int(since or 0)))
        key, partition, must = (tuple(told[kind]) for kind in ("key", "partition", "check"))
        is_content, is_compact = content and not told["event"], bool(told["compact"])
        found.append(Table(name, comment, key, tuple(columns), is_content, partition, must, is_compact))
    return tuple(found)
