"""What tables and views there are, for people: columns, types, units, meanings, and a value of each."""

from dataclasses import dataclass

import duckdb

from core.errors import UserError
from core.tables import TABLES, Table
from core.views import VIEWS
from warehouse.lake.connection import sql_type

UNITS = {"_s": "seconds", "_px": "pixels", "_bytes": "bytes", "_usd": "US dollars", "_tokens": "tokens"}
UNIT_OF = {"fps": "frames per second", "hours": "hours", "bytes": "bytes", "num_frames": "frames", "frames": "frames"}
UNIT_OF |= dict.fromkeys(("frame_index", "start_frame", "end_frame", "other_frame"), "frame from 0")
UNIT_OF |= dict.fromkeys(("progress", "progress_procvlm", "confidence", "coverage", "end_progress"), "0..1")
LOOKED_AT = 50  # rows of a table, for an example of each column


@dataclass(frozen=True)
class Described:
    """One column of a table or view; `example` is a value of this corpus, "" where there is none."""

    relation: str
    column: str
    type: str
    unit: str
    comment: str
    example: str


class SchemaError(UserError):
    """A table or view that does not exist."""


def relations() -> list[dict]:
    """Every table and view: name, kind (content, events, view), key, comment."""
    tables = [
        {"name": t.name, "kind": "content" if t.content else "events", "key": ", ".join(t.key), "comment": t.comment}
        for t in TABLES.values()
    ]
    return tables + [{"name": v.name, "kind": "view", "key": "", "comment": v.comment} for v in VIEWS]


def columns(names: list[str] | None = None, con: duckdb.DuckDBPyConnection | None = None) -> list[Described]:
    """Columns of some relations (default: all), with values out of `con`'s lake as examples. Raises SchemaError."""
    # Where each column comes from: it is described there
    types_of_view = _view_types()
    origins: list[_Origin] = []
    for name in _chosen(names):
        origins += _table_columns(name) if name in TABLES else _view_columns(name, types_of_view[name])
    # Values out of the tables that the columns come from: views may be slow, and show the same
    examples = _examples(con, {origin.table for origin in origins}) if con else {}

    described = []
    for o in origins:
        example = examples.get((o.table, o.table_column), "")
        described.append(Described(o.relation, o.column, o.type, unit(o.column), o.comment, example))
    return described


def _chosen(names: list[str] | None) -> list[str]:
    """Some relations, or all, in the order of the schema. Raises SchemaError."""
    every = [relation["name"] for relation in relations()]
    for name in names or ():
        if name not in every:
            raise SchemaError(f"there is no table or view {name!r}; there are: {', '.join(sorted(every))}")
    return [name for name in every if not names or name in names]


@dataclass(frozen=True)
class _Origin:
    """A column of a relation, and the column of a table that it is taken from; "" where a view makes it up itself."""

    relation: str
    column: str
    type: str
    comment: str
    table: str
    table_column: str


def _table_columns(name: str) -> list[_Origin]:
    return [_Origin(name, c.name, sql_type(c.type), c.comment, name, c.name) for c in TABLES[name].columns]


def _view_columns(name: str, types: dict[str, str]) -> list[_Origin]:
    """The columns of a view, `types` by name. One that the view does not describe is the table's of the same name."""
    view = next(v for v in VIEWS if v.name == name)
    words = set(view.sql.split())
    tables = sorted(TABLES.values(), key=lambda t: t.name not in words)  # those that the view names come first
    origins = []
    for column, kind in types.items():
        table = _first_with(column, tables)
        # A view's own description counts before the one of a table's column of the same name
        if column in view.columns or table is None:
            origins.append(_Origin(name, column, kind, view.columns.get(column, ""), "", ""))
        else:
            comment = next(c.comment for c in table.columns if c.name == column)
            origins.append(_Origin(name, column, kind, comment, table.name, column))
    return origins


def _first_with(column: str, tables: list[Table]) -> Table | None:
    for table in tables:
        if any(c.name == column for c in table.columns):
            return table
    return None


def unit(column: str) -> str:
    if column in UNIT_OF:
        return UNIT_OF[column]
    return next((name for suffix, name in UNITS.items() if column.endswith(suffix)), "")


def _view_types() -> dict[str, dict[str, str]]:
    """Column types of the views, from an empty corpus in memory."""
    with duckdb.connect() as con:
        for table in TABLES.values():
            definitions = ", ".join(f'"{c.name}" {sql_type(c.type)}' for c in table.columns)
            con.execute(f"CREATE TABLE {table.name} ({definitions})")
        for view in VIEWS:
            con.execute(f"CREATE VIEW {view.name} AS {view.sql}")
        return {v.name: {r[0]: r[1] for r in con.execute(f"DESCRIBE {v.name}").fetchall()} for v in VIEWS}


def _examples(con: duckdb.DuckDBPyConnection, tables: set[str]) -> dict[tuple[str, str], str]:
    """A value of each of some tables' columns, by table and column, out of its first rows."""
    examples = {}
    for name in tables - {""}:
        rows = con.execute(f"FROM {name} LIMIT {LOOKED_AT}").to_arrow_table().to_pylist()
        for column in TABLES[name].schema.names:
            value = next((row[column] for row in rows if row[column] not in (None, "", [])), None)
            if value is not None:
                examples[name, column] = _short(value)
    return examples


def _short(value: object, length: int = 40) -> str:
    text = f"{value:.4g}" if isinstance(value, float) else " ".join(str(value).split())
    return text if len(text) <= length else text[: length - 1] + "…"
