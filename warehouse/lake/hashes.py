"""Hashes of contents: equal rows have equal hashes, whatever wrote or ordered them."""

import hashlib
from collections.abc import Mapping, Sequence
from functools import cache

import duckdb
import pyarrow as pa

from core.tables import TABLES, Table
from warehouse.lake.connection import LakeConnection, quoted


@cache
def _scratch() -> duckdb.DuckDBPyConnection:
    return duckdb.connect(config={"python_enable_replacements": "false", "threads": 1})


def table_hash(table: Table, data: pa.Table) -> str:
    """sha256 over the rows as JSON in key order: equal rows, equal hash, whatever wrote or ordered them."""
    columns = quoted(tuple(c.name for c in table.columns if c.digest))
    # Many tables of a small chunk have no rows; to ask DuckDB costs 3 ms
    if columns and not data.num_rows:
        return hashlib.sha256(b"").hexdigest()
    # DuckDB writes JSON alike for all types: the same text of the same rows, whatever library made the table
    con = _scratch()
    con.register("hashed", data)
    row = con.execute(
        f"SELECT sha256(coalesce(string_agg(j, chr(10) ORDER BY {quoted(table.key)}), '')) FROM "
        f"(SELECT {_row_text(table)} AS j, {quoted(table.key)} FROM hashed)"
        if columns
        else "SELECT ''"
    ).fetchone()
    con.unregister("hashed")
    assert row is not None
    return row[0]


def _row_text(table: Table) -> str:
    """SQL: what a row is hashed by. Of a table with long rows their hashes, which need not stand in memory together."""
    text = _json([c.name for c in table.columns if c.digest])
    return f"sha256({text})" if table.compact else text


def _json(columns: Sequence[str]) -> str:
    pack = ", ".join(f'"{name}" := "{name}"' for name in columns)
    return f"to_json(struct_pack({pack}))::VARCHAR"


def output_hash(tables: Mapping[str, pa.Table]) -> str:
    """One hash over what a stage publishes."""
    return content_key(*(part for name in sorted(tables) for part in (name, table_hash(TABLES[name], tables[name]))))


def content_key(*parts: str) -> str:
    """sha256 over strings, unambiguous in where each ends."""
    h = hashlib.sha256()
    for part in parts:
        data = part.encode()
        h.update(len(data).to_bytes(8, "big") + data)
    return h.hexdigest()


def digest(lake: LakeConnection) -> dict[str, str]:
    """One hash per content table, and one for the view `episodes`, over rows ordered by key.

    Hashed per chunk first, so 60 M rows never stand in memory together.
    """
    hashes = {t.name: _digest(lake, t.name, t.key, _row_text(t), t.schema.names) for t in TABLES.values() if t.content}
    names = tuple(r[0] for r in lake.rows("SELECT column_name FROM (DESCRIBE episodes)"))
    hashes["episodes"] = _digest(lake, "episodes", ("dataset", "episode_index"), _json(names), list(names))
    return dict(sorted(hashes.items()))


def _digest(lake: LakeConnection, name: str, key: tuple[str, ...], row_text: str, columns: list[str]) -> str:
    by = [c for c in ("dataset", "chunk") if c in columns]
    group = f"GROUP BY {', '.join(by)} ORDER BY {', '.join(by)}" if by else ""
    sql = (
        f"SELECT sha256(string_agg(row_text, chr(10) ORDER BY {quoted(key)})) "
        f"FROM (SELECT *, {row_text} AS row_text FROM {name}) {group}"
    )
    return content_key(*(r[0] or "" for r in lake.rows(sql)))
