"""What tables and views there are, for people: columns, types, units, meanings, and a value of each."""

from collections.abc import Collection, Iterator
from dataclasses import dataclass

import duckdb

from core.errors import UserError
from core.tables import TABLES
from core.views import VIEWS
from warehouse.lake.connection import sql_type

UNITS = {"_s": "seconds", "_px": "pixels", "_bytes": "bytes", "_usd": "US dollars", "_tokens": "tokens"}
UNIT_OF = {"fps": "frames per second", "hours": "hours", "bytes": "bytes", "num_frames": "frames", "frames": "frames"}
UNIT_OF |= dict.fromkeys(("frame_index", "start_frame", "end_frame"), "frame from 0")
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
    known = {r["name"] for r in relations()}
    for name in names or ():
        if name not in known:
            raise SchemaError(f"there is no table or view {name!r}; there are: {', '.join(sorted(known))}")
    chosen = [r["name"] for r in relations() if not names or r["name"] in names]
    types = _view_types()
    found = [(n, *facts) for n in chosen for facts in _columns(n, types)]
    examples = _examples(con, {table for *_, table, _ in found if table}) if con else {}
    return [
        Described(n, column, kind, unit(column), comment, examples.get((table, of), ""))
        for n, column, kind, comment, table, of in found
    ]


def _columns(name: str, types: dict[str, dict[str, str]]) -> Iterator[tuple[str, str, str, str, str]]:
    """Name, type, comment, and the table and column that it comes from, of each column of a relation."""
    if name in TABLES:
        for c in TABLES[name].columns:
            yield c.name, sql_type(c.type), c.comment, name, c.name
        return
    view = next(v for v in VIEWS if v.name == name)
    words = set(view.sql.split())
    read = sorted(TABLES.values(), key=lambda t: t.name not in words)  # the tables that the view names come first
    for column, kind in types[name].items():
        source = next(((t, c) for t in read for c in t.columns if c.name == column), None)
        if column in view.columns or source is None:
            yield column, kind, view.columns.get(column, ""), "", ""
        else:
            yield column, kind, source[1].comment, source[0].name, column


def unit(column: str) -> str:
    return UNIT_OF.get(column) or next((u for suffix, u in UNITS.items() if column.endswith(suffix)), "")


def _view_types() -> dict[str, dict[str, str]]:
    """Column types of the views, from an empty corpus in memory."""
    with duckdb.connect() as con:
        for t in TABLES.values():
            con.execute(f"CREATE TABLE {t.name} ({', '.join(f'"{c.name}" {sql_type(c.type)}' for c in t.columns)})")
        for view in VIEWS:
            con.execute(f"CREATE VIEW {view.name} AS {view.sql}")
        return {v.name: {r[0]: r[1] for r in con.execute(f"DESCRIBE {v.name}").fetchall()} for v in VIEWS}


def _examples(con: duckdb.DuckDBPyConnection, tables: Collection[str]) -> dict[tuple[str, str], str]:
    """A value of each of some tables' columns, by table and column, out of its first rows."""
    found = {}
    for t in (TABLES[name] for name in tables):
        rows = con.execute(f"FROM {t.name} LIMIT {LOOKED_AT}").to_arrow_table().to_pylist()
        for c in t.columns:
            value = next((r[c.name] for r in rows if r[c.name] not in (None, "", [])), None)
            if value is not None:
                found[t.name, c.name] = _short(value)
    return found


def _short(value: object, length: int = 40) -> str:
    text = f"{value:.4g}" if isinstance(value, float) else " ".join(str(value).split())
    return text if len(text) <= length else text[: length - 1] + "…"
