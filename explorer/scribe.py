"""Writes down what people judge: durably and at once into the journal, which is the
answer; a thread of its own commits the journal to the lake, many judgements together.
What it cannot commit stays in the journal, and every page says so.

With a catalog in Postgres, where people judge on several machines, each judgement is
committed before it is answered.
"""

import threading
import time
from collections.abc import Callable
from contextlib import closing
from functools import partial
from typing import Any

import duckdb

from core.errors import UserError, first_line
from explorer.access import CorpusView, LakeReader, PageError
from explorer.corrected_labels import corrected_places
from explorer.episode import recording_at
from warehouse.lake import Lake
from warehouse.lake.connection import LakeConnection
from warehouse.lake.journal import JournalLake, PeopleJournal
from warehouse.lake.place import place
from warehouse.lake.statements import Writable, newest_row

IDLE_S = 5.0  # without a judgement: then what waits is committed
MOST_S = 30.0  # that a judgement waits while others come
AGAIN_S = 10.0  # after a commit that failed
STOP_S = 60.0  # that the end of the explorer waits for the last commit


class Scribe:
    """Of one explorer. For use by several threads."""

    def __init__(self, corpus: CorpusView) -> None:
        self._corpus = corpus
        self._space = corpus.space
        self._is_prompt = not place(corpus.space).is_postgres
        self._journal = PeopleJournal(corpus.space)
        self._saying = threading.Lock()
        self._committing = threading.Lock()
        self._wake = threading.Condition()
        # When the latest and the oldest that waits came, by the monotonic clock
        self._latest = self._oldest = 0.0
        self._thread: threading.Thread | None = None
        self._is_ending = False
        self._lake: Lake | None = None
        self._trouble = ""
        if corpus.fixed is None and self._journal.size:
            self._begin()

    @property
    def trouble(self) -> str | None:
        """Why what waits cannot be committed, in a sentence; None: it can."""
        if not self._trouble:
            return None
        kept_note = f"What was judged is kept in {self._journal.path.name} and counts here"
        return f"{kept_note}, but could not be written to the lake: {self._trouble}. It is tried again by itself."

    def say[T](self, act: Callable[[LakeReader, Writable], T]) -> T:
        """What `act` gives, which adds rows of people to the lake that it is given; they
        are durable after it.

        Raises PageError: nothing can be written here; and what `act` raises.
        """
        try:
            if self._is_prompt:
                return self._say_at_once(act)
            return self._say_to_lake(act)
        except OSError as e:
            raise PageError(f"the workspace cannot be written to: {e.strerror}", 403) from e

    def _say_at_once[T](self, act: Callable[[LakeReader, Writable], T]) -> T:
        with self._saying, self._journal.held(made=True), self._corpus.reading() as reader:
            newest = partial(self._newest, reader)
            lake = JournalLake(self._space, reader.con, newest, partial(recording_at, reader))
            with lake.together():
                result = act(reader, lake)
        self._begin()
        return result

    def _newest(self, reader: LakeReader, table: str, **key_columns: Any) -> dict[str, Any] | None:
        """The newest row of an episode: what lies over the lake is newer than what it
        has; of most it has nothing.
        """
        place = key_columns["dataset"], key_columns["episode_index"]
        if row := reader.rows_said_since(table).get(place):
            return row
        if place not in corrected_places(reader, table):
            return None
        return newest_row(LakeConnection(self._space, reader.con), table, **key_columns)

    def _say_to_lake[T](self, act: Callable[[LakeReader, Writable], T]) -> T:
        lake = Lake(self._space)
        with closing(lake.con), self._corpus.reading() as reader:
            return act(reader, lake)

    def settle(self) -> bool:
        """Commit what waits now; was all of it? Else it stays in the journal, and `trouble` says why."""
        try:
            self._commit()
            self._trouble = ""
        except (UserError, duckdb.Error, OSError) as e:
            # Opened anew the next time: the connection may be what failed
            self._lake, self._trouble = None, first_line(e)
        return not self._trouble

    def stop(self) -> None:
        """Commit what waits, and end the thread."""
        with self._wake:
            self._is_ending = True
            self._wake.notify_all()
        if self._thread:
            self._thread.join(STOP_S)

    def _begin(self) -> None:
        with self._wake:
            now_s = self._latest = time.monotonic()
            self._oldest = self._oldest or now_s
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="scribe", daemon=True)
                self._thread.start()
            self._wake.notify_all()

    def _run(self) -> None:
        while True:
            with self._wake:
                while not self._is_due():
                    self._wake.wait(self._seconds_to_commit())
                is_ending = self._is_ending
                self._oldest = 0.0
            is_written = self.settle()
            if is_ending:
                return
            if not is_written:
                with self._wake:
                    self._wake.wait_for(lambda: self._is_ending, AGAIN_S)
                    self._oldest = self._oldest or time.monotonic()

    def _commit(self) -> None:
        """Raises UserError, duckdb.Error, OSError."""
        with self._committing:
            if not self._journal.size:
                return
            if self._lake is None:
                self._lake = Lake(self._space, takes_in=False)
            committed = self._lake.take_in(self._corpus.adopt, self._corpus.read_journal_anew)
            if committed.num_unreadable:
                raise UserError(
                    f"{committed.num_unreadable} lines of {self._journal.path.name} cannot be read; "
                    f"a copy is in {self._space.removed}"
                )

    def _is_due(self) -> bool:
        if self._is_ending:
            return True
        rest_s = self._seconds_to_commit()
        return rest_s is not None and rest_s <= 0

    def _seconds_to_commit(self) -> float | None:
        """Seconds until the next commit; None: nothing waits."""
        if not self._oldest:
            return None
        now_s = time.monotonic()
        return min(self._latest + IDLE_S - now_s, self._oldest + MOST_S - now_s)
