"""What people said and the lake does not have yet, laid over one open state of it: every
query of a page sees both.

Tables of that name with the rows of both, and all views that read them, stand in a
database in memory, where names are looked for first. Rows come from the journal, whoever
wrote them.
"""

import re
import threading
from typing import Any

import duckdb

from core.paths import Workspace
from core.tables import TABLES
from warehouse.lake import people
from warehouse.lake.connection import quoted, sql_type
from warehouse.lake.journal import PeopleJournal
from warehouse.lake.statements import Place
from warehouse.lake.views import VIEWS

NAME = "journal"  # of the database
TABLES_LAID_OVER = ("corrections", "outcomes")


class Overlay:
    """The rows of the journal over one connection's lake. For use by several threads."""

    def __init__(self, workspace: Workspace, con: duckdb.DuckDBPyConnection) -> None:
        self._journal = PeopleJournal(workspace)
        self._con = con
        self._lock = threading.Lock()
        self._end = 0  # byte of the journal up to which it was read
        self._keys: set[tuple[str, people.Key]] = set()
        # By table the newest row of each episode of which it has some
        self.newest: dict[str, dict[Place, dict[str, Any]]] = {
            name: {} for name in TABLES_LAID_OVER
        }
        con.execute(f"ATTACH ':memory:' AS {NAME}")
        con.execute(f"SET search_path = '{NAME}.main,lake.main'")
        for name in TABLES_LAID_OVER:
            columns = ", ".join(
                f"{quoted((c.name,))} {sql_type(c.type)}" for c in TABLES[name].columns
            )
            con.execute(f"CREATE TABLE {NAME}.main.{name}_waiting ({columns})")
            con.execute(
                f"CREATE VIEW {NAME}.main.{name} AS FROM lake.main.{name} "
                f"UNION ALL BY NAME FROM {NAME}.main.{name}_waiting"
            )
        for view in VIEWS:
            if view.name in LAID_OVER:
                con.execute(f"CREATE VIEW {NAME}.main.{view.name} AS {view.sql}")
        self._read(is_first=True)

    def sync(self) -> None:
        """Take in what was added to the journal since."""
        if self._journal.size != self._end:
            with self._lock:
                self._read()

    def begin_anew(self) -> None:
        """Read the journal from its begin the next time: it was emptied, and may soon be
        as long as it was. Rows that were read before are not read twice.
        """
        with self._lock:
            self._end = 0

    def _read(self, *, is_first: bool = False) -> None:
        # A journal that is shorter was emptied: what it has now is newer than all that was read
        waiting = self._journal.read(self._end if self._journal.size >= self._end else 0)
        new: dict[str, dict[people.Key, dict[str, Any]]] = {}
        for name, row in waiting.rows:
            key = people.key_of(TABLES[name], row)
            if name in TABLES_LAID_OVER and (name, key) not in self._keys:
                new.setdefault(name, {})[key] = row
        for name, rows in new.items():
            # A kill may have left in the journal what the lake has
            present = self._keys_in_lake(name) if is_first else set()
            self._lay_over(name, [row for key, row in rows.items() if key not in present])
            self._keys.update((name, key) for key in rows)
        # Last: other requests do not wait for what counts as read
        self._end = waiting.end

    def _keys_in_lake(self, name: str) -> set[people.Key]:
        return set(
            self._con.execute(f"SELECT {quoted(TABLES[name].key)} FROM lake.main.{name}").fetchall()
        )

    def _lay_over(self, name: str, rows: list[dict[str, Any]]) -> None:
        with self._con.cursor() as con:
            con.register("new_rows", TABLES[name].rows(rows))
            con.execute(f"INSERT INTO {NAME}.main.{name}_waiting BY NAME FROM new_rows")
            con.unregister("new_rows")
        # Another mapping, not a changed one: requests go through the former
        self.newest[name] = self.newest[name] | {
            (row["dataset"], row["episode_index"]): row for row in rows
        }


def _names_laid_over() -> frozenset[str]:
    """The tables that are laid over, and the views that read one of them, or such a view."""
    names = set(TABLES_LAID_OVER)
    for _ in VIEWS:
        words = re.compile(rf"\b({'|'.join(sorted(names))})\b")
        names |= {view.name for view in VIEWS if words.search(view.sql)}
    return frozenset(names)


LAID_OVER = _names_laid_over()
