"""One row per episode, apart from the lake, so that lists, counts and histograms of
400,000 episodes stay quick.

The index is made from one snapshot of the lake and made again when the lake has moved on:
at once where that is quick, else in the background, while pages go on with the old one
and say so. That of a large corpus is kept in a file, so the next start finds it.
"""

import threading
import time
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import duckdb

from core.files import whole_file
from core.names import PLACEHOLDER
from explorer.access import CorpusView, KeptAnswers, LakeReader, Snapshot
from explorer.facets import DURATION, FACETS, JUDGED, episodes_sql

VERSION = 10  # of the index's tables; a file of another is not read
LARGE = 2_000  # episodes; the index of more is kept in a file, and no page waits for a newer one
OLD_FILES = 3  # files of other snapshots
QUICK_S = 0.5  # an index made faster than this is made before the page that needs it
FIRST_S = 300.0  # that making one may take
REST_S = 60.0  # after the newest statement the index is made anew
REST = 10  # after a slow one, as many times its duration, before the next
MEMORY = "256MB"
COPY_ROWS = 20_000  # at once, from the lake into the index
MOST_COUNTED = 500  # answers that are kept
UNNAMED = "unnamed"  # all steps without names go by one word, by which episodes are found
WORDS = tuple(facet.name for facet in FACETS if facet.listed)
COLUMNS = (
    f"e.episode_index, e.chunk, coalesce(e.num_frames, 0) AS num_frames, {DURATION} AS duration_s, l.confidence,"
    " q.end_progress, q.jump, coalesce(l.named, true) AS named, demo.score AS demonstration_score,"
    " demo.why AS demonstration_why"
)
FACETS_SQL = ", ".join(f"{facet.sql} AS {facet.name}" for facet in FACETS if facet.listed)
# Signs come from the review queue, which is copied anyway
EPISODES_SQL = episodes_sql(
    f"{COLUMNS}, {FACETS_SQL}".replace("sign.why", "NULL::VARCHAR"), "e.dataset = $1"
)
STEPS_SQL = f"""
    SELECT s.dataset, s.episode_index,
           CASE WHEN regexp_full_match(s.name, '{PLACEHOLDER}') THEN '{UNNAMED}' ELSE s.name END AS name
    FROM segments s JOIN active_runs a ON a.dataset = $1
      AND s.chunk = a.chunk AND s.episode_index = a.episode_index AND s.label_run = a.label_run
    WHERE s.dataset = $1 AND s.kind = 'step'"""
# The review queue without what people have judged, and corrections that wait for them
REVIEW_SQL = f"""
    SELECT dataset, episode_index, task, label_run, score, signs, why, failure_signs FROM review_queue q
    WHERE dataset = $1 AND NOT {JUDGED}"""
# The strongest sign is the one that lists of episodes show, so that they and the queue tell of the same episodes
SIGN_SQL = """
    UPDATE raw SET quality = v.signs[1] FROM review v
    WHERE raw.dataset = v.dataset AND raw.episode_index = v.episode_index"""
WAITING_SQL = """
    SELECT c.dataset, c.episode_index, f.task, correction_id, author, created_at, comment
    FROM current_corrections c JOIN episode_facts f USING (dataset, episode_index) WHERE c.status = 'review'"""
# Words that repeat become enumerations, a byte or two each. Tasks and steps have numbers, by which words are looked for
# once in each text. An episode's number is its place in the order of dataset and index
WORD_TYPES = "".join(
    f"CREATE TYPE {w}_word AS ENUM (SELECT DISTINCT {w} FROM raw ORDER BY 1);" for w in WORDS
)
INDEX_SQL = f"""
    {SIGN_SQL};
    {WORD_TYPES}
    CREATE TABLE tasks AS SELECT row_number() OVER (ORDER BY task)::INTEGER AS task_id, task AS text
      FROM (SELECT DISTINCT task FROM raw WHERE task <> '');
    CREATE TABLE steps AS SELECT row_number() OVER (ORDER BY name)::INTEGER AS step_id, name
      FROM (SELECT DISTINCT name FROM raw_steps);
    CREATE TABLE episodes AS
      SELECT (row_number() OVER (ORDER BY r.dataset, r.episode_index) - 1)::INTEGER AS row,
             r.* REPLACE ({", ".join(f"{w}::{w}_word AS {w}" for w in WORDS)}, num_frames::INTEGER AS num_frames,
               duration_s::FLOAT AS duration_s, end_progress::FLOAT AS end_progress, jump::FLOAT AS jump),
             t.task_id, coalesce(n.num_steps, 0)::SMALLINT AS num_steps
      FROM raw r LEFT JOIN tasks t ON t.text = r.task LEFT JOIN (
        SELECT g.dataset AS of, g.episode_index AS number, count(*) AS num_steps FROM raw_steps g GROUP BY ALL) n
        ON n.of = r.dataset AND n.number = r.episode_index
      ORDER BY r.dataset, r.episode_index;
    CREATE TABLE step_rows AS SELECT DISTINCT s.step_id, e.row FROM raw_steps g JOIN steps s ON s.name = g.name
      JOIN episodes e ON e.dataset::VARCHAR = g.dataset AND e.episode_index = g.episode_index ORDER BY 1, 2;
    DROP TABLE raw;
    DROP TABLE raw_steps"""


@dataclass(frozen=True)
class Indexed:
    """An index of one snapshot: tables `episodes` (numbered by dataset and index),
    `tasks`, `steps`, `step_rows` (which episodes have a step), `review` (what a person
    should look at) and `waiting` (corrections that wait for one).

    newest_statement: number of the newest statement that it has seen. once: what pages counted in it.
    """

    snapshot: Snapshot
    newest_statement: int
    con: duckdb.DuckDBPyConnection = field(repr=False)
    made_in_s: float
    once: KeptAnswers = field(default_factory=lambda: KeptAnswers(MOST_COUNTED), repr=False)

    def covers(self, reader: LakeReader) -> bool:
        """Does it hold all that a reader sees? While people speak, pages leave out what was judged since."""
        if self.snapshot.number < reader.snapshot.number:
            return False
        return self.newest_statement >= reader.words.newest or reader.words.rested_s < REST_S

    def rows(self, sql: str, *values: Any, **named_values: Any) -> list[tuple]:
        with self.con.cursor() as con:
            return con.execute(sql, named_values or list(values)).fetchall()

    def dicts(self, sql: str, *values: Any, **named_values: Any) -> list[dict]:
        with self.con.cursor() as con:
            return con.execute(sql, named_values or list(values)).to_arrow_table().to_pylist()


class CorpusIndex:
    """The newest index of a corpus. For use by several threads."""

    def __init__(self, corpus: CorpusView) -> None:
        self._corpus = corpus
        self._folder = corpus.space.root / "explorer"
        self._newest: Indexed | None = None
        self._building = threading.Lock()
        self._not_before = 0.0

    def at(self, reader: LakeReader, *, waits: bool = True) -> Indexed:
        """An index, of the reader's snapshot where that is at hand or (`waits`) quickly
        made. Waits for the first.
        """
        newest = self._newest
        if newest is not None and newest.covers(reader):
            return newest

        # The first one, or one that is made at once: the page waits for it. Another page may have made it meanwhile
        if newest is None or (waits and newest.made_in_s < QUICK_S):
            with self._building:
                newest = self._newest
                if newest is None or not newest.covers(reader):
                    newest = self._newest = self._make()
            return newest

        # Else it is made in the background, with rests between, and the page goes on with the old one
        if time.monotonic() > self._not_before and self._building.acquire(blocking=False):
            threading.Thread(target=self._renew, daemon=True).start()
        return newest

    def _renew(self) -> None:
        try:
            self._newest = self._make()
        finally:
            self._building.release()

    def _make(self) -> Indexed:
        start_s = time.monotonic()
        with self._corpus.reading(FIRST_S) as reader:
            [(num_episodes,)] = reader.rows("SELECT count(*) FROM episode_facts")
            con = self._in_file(reader) if num_episodes > LARGE else _build(reader, ":memory:")
        took = time.monotonic() - start_s
        self._not_before = time.monotonic() + REST * took
        return Indexed(
            reader.snapshot, reader.words.newest, con, max(took, QUICK_S * (num_episodes > LARGE))
        )

    def _in_file(self, reader: LakeReader) -> duckdb.DuckDBPyConnection:
        """The index in its file, which is made where it is missing; in memory where no
        file can be written.
        """
        path = (
            self._folder / f"index-{VERSION}-{reader.snapshot.number}-{reader.words.newest}.duckdb"
        )
        if not path.exists():
            try:
                self._folder.mkdir(exist_ok=True)
                (self._folder / ".writable").touch()
            except OSError:
                return _build(reader, ":memory:")
            with whole_file(path, synced=False) as unfinished:
                unfinished.unlink()  # DuckDB takes an empty file for a damaged one
                _build(reader, str(unfinished)).close()
            self._forget(path)
        return duckdb.connect(str(path), read_only=True, config=_config())

    def _forget(self, newest: Path) -> None:
        with suppress(OSError):  # another explorer forgets, too
            old = sorted(self._folder.glob("index-*.duckdb"), key=lambda p: p.stat().st_mtime)
            for path in [p for p in old if p != newest][:-OLD_FILES]:
                path.unlink(missing_ok=True)


def _config() -> dict[str, Any]:
    return {"threads": "1", "memory_limit": MEMORY, "python_enable_replacements": "false"}


def _build(reader: LakeReader, path: str) -> duckdb.DuckDBPyConnection:
    """A database with the index: rows of the lake that it is made from, then its tables."""
    con = duckdb.connect(path, config=_config())

    def copy(table: str, sql: str, values: tuple = (), *, first: bool = True) -> None:
        """Rows of a query into a table, which the first make."""
        con.register(
            "rows_of_query", reader.con.execute(sql, list(values)).to_arrow_reader(COPY_ROWS)
        )
        kind = "TEMP TABLE" if table.startswith("raw") else "TABLE"
        con.execute(
            f"{f'CREATE {kind} {table} AS' if first else f'INSERT INTO {table}'} FROM rows_of_query"
        )
        con.unregister("rows_of_query")

    datasets = reader.rows("SELECT dataset FROM datasets ORDER BY 1") or [("",)]
    for k, name in enumerate(datasets):  # one at a time, so that what is joined stays small
        for table, sql in (("raw", EPISODES_SQL), ("raw_steps", STEPS_SQL), ("review", REVIEW_SQL)):
            copy(table, sql, name, first=k == 0)
    copy("waiting", WAITING_SQL)
    con.execute(INDEX_SQL)
    return con
