"""What people say, kept durably before the lake has it: they wait for one small write, and the lake follows behind.

journal.jsonl has lines as people.jsonl has them, each synced before anybody is told that it is saved. Whoever opens the
lake to write takes them in, in one commit, after which the journal is empty (`Lake.take_in`). A row has its key before:
one that the lake has already, as after a kill between that commit and the emptying, is not added again.
"""

import fcntl
import os
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any, NamedTuple

import duckdb

from core.files import sync, write_file
from core.paths import Workspace
from core.tables import TABLES
from warehouse.lake import people
from warehouse.lake.connection import LakeConnection


class Waiting(NamedTuple):
    """Rows (table, row) that wait, in the order in which they were said; they end at byte `end` of the journal.

    num_unreadable: lines between them that no program wrote so.
    """

    rows: tuple[tuple[str, dict[str, Any]], ...] = ()
    end: int = 0
    num_unreadable: int = 0

    def by_table(self) -> dict[str, list[dict[str, Any]]]:
        """Each row once."""
        tables: dict[str, dict[people.Key, dict[str, Any]]] = {}
        for name, row in self.rows:
            tables.setdefault(name, {})[people.key_of(TABLES[name], row)] = row
        return {name: list(rows.values()) for name, rows in tables.items()}


class PeopleJournal:
    """The journal of a workspace. Its file is only ever added to, and emptied in its place."""

    def __init__(self, workspace: Workspace) -> None:
        self.workspace = workspace
        self.path = workspace.journal

    @property
    def size(self) -> int:
        """Bytes of what waits; 0 where nothing ever waited."""
        try:
            return self.path.stat().st_size
        except FileNotFoundError:
            return 0

    @contextmanager
    def held(self, *, made: bool = False) -> Iterator[None]:
        """While nobody else adds to it, or empties it. made: the file is made where it is missing."""
        if not made and not self.path.exists():
            yield
            return
        is_new = not self.path.exists()
        with self.path.open("ab") as f:
            if is_new:
                sync(self.path.parent)
            fcntl.flock(f, fcntl.LOCK_EX)
            yield

    def append(self, rows_by_table: Mapping[str, list[dict[str, Any]]]) -> None:
        """Add rows, durably; while it is held. Raises OSError: nothing was added."""
        former_size = self.size
        lines: list[str] = []
        for name, rows in rows_by_table.items():
            lines += people.lines_of(name, TABLES[name].rows(rows).to_pylist())
        try:
            people.append(self.path, lines)
        except OSError:
            with suppress(OSError):  # what failed says more
                os.truncate(self.path, former_size)
            raise

    def read(self, begin: int = 0) -> Waiting:
        """What waits, from a byte at which a line begins; a line that is being written is not read yet."""
        if self.size <= begin:
            return Waiting(end=begin)
        with self.path.open("rb") as f:
            f.seek(begin)
            text = f.read()
        whole = text[: text.rfind(b"\n") + 1]
        entries = list(people.read_lines(whole.splitlines()))
        rows = tuple(entry[:2] for entry in entries if entry is not None)
        return Waiting(rows, begin + len(whole), len(entries) - len(rows))

    def clear(self, waiting: Waiting) -> None:
        """Empty it if nothing was added since; while it is held and nobody else can commit.

        A line that a power cut left half written at the end was never answered. Where others were unreadable a copy is
        kept in the workspace's folder of what was removed.
        """
        if not self.size:
            return
        with self.path.open("rb") as f:
            f.seek(waiting.end)
            if b"\n" in f.read():
                return
        if waiting.num_unreadable:
            write_file(
                self.workspace.removed / f"journal-{time.time_ns()}.jsonl", self.path.read_bytes()
            )
        os.truncate(self.path, 0)


class JournalLake(LakeConnection):
    """A state of the lake that is read, and to which people's rows are added by way of the journal, while it is held.

    newest: the newest row of a table that has these values, as `statements.newest_row` finds it, by whoever knows more.
    recording_of: the recording that an episode (dataset, number) holds, as `recordings_at` finds it; None: none.
    """

    def __init__(
        self,
        workspace: Workspace,
        con: duckdb.DuckDBPyConnection,
        newest: Callable[..., dict[str, Any] | None],
        recording_of: Callable[[str, int], str | None],
    ) -> None:
        super().__init__(workspace, con)
        self.newest = newest
        self.recording_of = recording_of
        self._rows: dict[str, list[dict[str, Any]]] = {}  # that are to be written, by table

    def recordings_at(self, places: Collection[tuple[str, int]]) -> dict[tuple[str, int], str]:
        recordings = {place: self.recording_of(*place) for place in places}
        return {place: recording for place, recording in recordings.items() if recording}

    @contextmanager
    def together(self) -> Iterator[None]:
        """What is added within is written at its end, in one go; nothing of it is where it fails. Raises OSError."""
        yield
        if any(self._rows.values()):
            PeopleJournal(self.workspace).append(self._rows)

    def append(
        self, message: str, name: str, settle: Callable[[], list[dict[str, Any]]]
    ) -> list[dict[str, Any]]:
        """Add the rows that `settle` makes, within `together`: they are durable at its end."""
        rows = self.with_recordings(TABLES[name], settle())
        self._rows.setdefault(name, []).extend(rows)
        return rows
