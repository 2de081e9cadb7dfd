"""What tables and views there are, for people: columns, types, units, meanings, and a value of each."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache, partial

import duckdb

from core.errors import UserError
from core.tables import TABLES
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


def relations() -> list[dict]:
    """Every table and view: name, kind (content, events, view), key, comment."""
    tables = [
        {"name": t.name, "kind": "content" if t.content else "events", "key": ", ".join(t.key), "comment": t.comment}
        for t in TABLES.values()
    ]
    return tables + [{"name": v.name, "kind": "view", "key": "", "comment": v.comment} for v in VIEWS]


def columns(names: list[str] | None = None, con: duckdb.DuckDBPyConnection | None = None) -> list[Described]:
    """Columns of some relations (default: all), with values out of `con`'s lake as examples. Raises UserError."""
    # Values out of the tables that the columns come from: views may be slow, and show the same
    examples = cache(partial(_examples, con)) if con else lambda table: {}
    types_of_view = _view_types()
    described = []
    for name in _chosen(names):
        for column, kind, comment, table in _columns_of(name, types_of_view):
            example = examples(table).get(column, "") if table else ""
            described.append(Described(name, column, kind, unit(column), comment, example))
    return described


def _chosen(names: list[str] | None) -> list[str]:
    """Some relations, or all, in the order of the schema. Raises UserError."""
    every = [relation["name"] for relation in relations()]
    for name in sorted(set(names or ()) - set(every)):
        raise UserError(f"there is no table or view {name!r}; there are: {', '.join(sorted(every))}")
    return [name for name in every if not names or name in names]


def _columns_of(name: str, types_of_view: dict[str, dict[str, str]]) -> Iterator[tuple[str, str, str, str]]:
    """Name, type, comment and table of a relation's columns. One that a view does not describe is the table's of the
    same name; of one that it makes up itself the table is ""."""
    if name in TABLES:
        yield from ((c.name, sql_type(c.type), c.comment, name) for c in TABLES[name].columns)
        return
    view = next(v for v in VIEWS if v.name == name)
    words = set(view.sql.split())
    tables = sorted(TABLES.values(), key=lambda t: t.name not in words)  # those that the view names come first
    for column, kind in types_of_view[name].items():
        # A view's own description counts before the one of a table's column of the same name
        found = [("", view.columns.get(column, ""))] * (column in view.columns)
        found += [(t.name, c.comment) for t in tables for c in t.columns if c.name == column]
        table, comment = [*found, ("", "")][0]
        yield column, kind, comment, table


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


def _examples(con: duckdb.DuckDBPyConnection, table: str) -> dict[str, str]:
    """A value of each of a table's columns, by column, out of its first rows."""
    rows = con.execute(f"FROM {table} LIMIT {LOOKED_AT}").to_arrow_table().to_pylist()
    values = {c: next((r[c] for r in rows if r[c] not in (None, "", [])), None) for c in TABLES[table].schema.names}
    return {column: _short(value) for column, value in values.items() if value is not None}


def _short(value: object, length: int = 40) -> str:
    text = f"{value:.4g}" if isinstance(value, float) else " ".join(str(value).split())
    return text if len(text) <= length else text[: length - 1] + "…"
