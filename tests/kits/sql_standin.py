"""In the process of user SQL: statements that are done by stand-ins, in the place of DuckDB.

Seen of DuckDB 1.5.5: memory that its limit does not count or that a query leaves behind, functions
that cannot be interrupted, and JSON in great depth that ends the process.
"""

from collections.abc import Callable
from functools import partial
from importlib import import_module
from typing import Any
from unittest.mock import patch

from tests.kits.standins import end_by_signal, sleep, stay_busy, stay_in_one_call, take_memory

HELD: list[object] = []  # what a query leaves behind
STANDINS: dict[str, Callable[[], object]] = {
    "sleep": sleep,
    "stay busy": stay_busy,
    "stay in one call": stay_in_one_call,
    "take memory": partial(take_memory, 1 << 30),
    "leave memory behind": lambda: HELD.append(take_memory(100 << 20)),
    "end by a signal": end_by_signal,
}


def in_lake(function: str, *args: Any) -> Any:
    """In the place of that of `warehouse.sql_process`: a query that is the name of a stand-in is
    done by it."""
    module = import_module("warehouse.lake.sql")
    answer = module.answer

    def answered(con: Any, sql: str, batch_rows: int) -> Any:
        if sql in STANDINS:
            STANDINS[sql]()
        return answer(con, "SELECT 1 AS a" if sql in STANDINS else sql, batch_rows)

    with patch.object(module, "answer", answered):
        return getattr(module, function)(*args)
