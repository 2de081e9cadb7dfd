"""Of which datasets people said anything: a quick look, before what joins all that they said."""

from collections.abc import Mapping, Sequence
from functools import partial

import duckdb

from warehouse.lake.connection import LakeConnection

WORDS = ("corrections", "reference_marks", "outcomes")  # tables of what people say; rows are only ever added to them


def said_of(lake: LakeConnection) -> Mapping[str, frozenset[str]]:
    """By table of people's words the datasets that it has rows of; a table that an older lake lacks has none."""
    return lake.once("said", partial(_look, lake))


def _look(lake: LakeConnection) -> dict[str, frozenset[str]]:
    try:
        rows = _datasets_in(lake, WORDS)
    except duckdb.CatalogException:
        rows = _datasets_in(lake, [table for table in WORDS if lake.has(table)])
    return {table: frozenset(dataset for name, dataset in rows if name == table) for table in WORDS}


def _datasets_in(lake: LakeConnection, tables: Sequence[str]) -> list[tuple[str, str]]:
    asked = [f"SELECT DISTINCT '{table}', dataset FROM {table}" for table in tables]
    return lake.rows(" UNION ALL ".join(asked)) if asked else []
