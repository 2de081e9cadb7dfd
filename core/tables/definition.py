"""The class of a table, and the columns and types that several tables share."""

from dataclasses import dataclass, field

import pyarrow as pa

STR, I64, I32, I16, F32, F64, BOOL = (
    pa.string(),
    pa.int64(),
    pa.int32(),
    pa.int16(),
    pa.float32(),
    pa.float64(),
    pa.bool_(),
)
TIME = pa.timestamp("us", tz="UTC")


@dataclass(frozen=True)
class Column:
    name: str
    type: pa.DataType
    comment: str
    digest: bool = True  # False for a place or a time: the same data elsewhere, or later, is the same corpus


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


C = Column
DATASET = C("dataset", STR, "dataset name")
EPISODE = C("episode_index", I64, "episode of the dataset, from 0")
CHUNK = C("chunk", I32, "chunk of the episode: episode_index // chunk_size")
CAMERA = C("camera", STR, "camera key as in the source")
FRAME = C("frame_index", I64, "frame of the episode, from 0")
LABEL_RUN = C("label_run", STR, "label run that made the label: see label_runs")

BY_CHUNK = ("dataset", "chunk")
