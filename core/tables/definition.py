"""The class of a table, and how tables are written down."""

import re
from dataclasses import dataclass, field

import pyarrow as pa


@dataclass(frozen=True)
class Column:
    name: str
    type: pa.DataType
    comment: str
    digest: bool = (
        True  # False for a place or a time: the same data elsewhere, or later, is the same corpus
    )
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
            raise ValueError(
                f"table {self.name}: key or partition columns {missing} missing, or a name twice"
            )
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


def tables(text: str, *, content: bool = True) -> tuple[Table, ...]:
    """Tables by their description: `name: comment`, and below it, two spaces further in, a line for each thing.

    `key` with names of columns, `partition` with one, `compact`, `event` (no content), `check` with a condition that no
    row breaks, names of columns that several tables have, or `column type: comment`. Behind the type may stand
    `unhashed` (its values are no content) and `since=15` (the version of the schema that brings it, which is then the
    lake's). A line that is still further in goes on with the one before.

    Columns of the key that several tables have need no line: they come first. So do those behind the key's `;`, which
    are no part of it. Content with a column `chunk` is partitioned by dataset and chunk, unless `partition` is there.
    """
    definitions = []
    # Lines that were broken are put together again
    for block in re.sub(r"\n {3,}", " ", text).strip("\n").split("\n\n"):
        name, comment = block.split("\n")[0].split(": ", 1)
        clauses = {word: re.findall(rf"^  {word}\b ?(.*)$", block, re.MULTILINE) for word in WORDS}
        key, _, key_columns = clauses["key"][0].partition("; ")
        columns = _columns(
            f"{key}, {key_columns}",
            re.findall(rf"^  (?!(?:{'|'.join(WORDS)})\b)(.*)$", block, re.MULTILINE),
        )
        default_partition = ("dataset", "chunk") if content and "chunk" in columns else ()
        partition = tuple(clauses["partition"]) or default_partition
        is_content = content and not clauses["event"]
        properties = is_content, partition, tuple(clauses["check"]), bool(clauses["compact"])
        definitions.append(
            Table(name, comment, tuple(key.split(", ")), tuple(columns.values()), *properties)
        )
    return tuple(definitions)


def _columns(first: str, lines: list[str]) -> dict[str, Column]:
    """Columns by name, as their lines say; first those of `first` that several tables have and no line describes."""
    columns = {name: SHARED[name] for name in first.split(", ") if name in SHARED}
    for line in lines:
        head, colon, about = line.partition(": ")
        described = {} if colon else {name: SHARED[name] for name in line.split(", ")}
        if colon:
            ((name, type_, unhashed, since),) = re.findall(
                r"^(\w+) (\S+)( unhashed)?(?: since=(\d+))?$", head
            )
            described = {name: Column(name, TYPES[type_], about, not unhashed, int(since or 0))}
        columns = {
            name: column for name, column in columns.items() if name not in described
        } | described
    return columns
