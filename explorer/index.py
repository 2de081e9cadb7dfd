"""One row per episode, apart from the lake, so that lists, counts and histograms of
400,000 episodes stay quick.

The index is made from one snapshot of the lake and made again when the lake has moved on:
at once where that is quick, else in the background, while pages go on with the old one
and say so. That of a large corpus is kept in a file, so the next start finds it.

And what episodes are chosen and ordered by: each facet once, as SQL over the lake, from
which the index is made, too.
"""

import re
import threading
import time
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from sys import intern
from typing import Any

import duckdb

from core.annotators import BY_PEOPLE, HUMAN, follows_sql, made_by_sql
from core.demonstration_quality import NOT_MEASURED
from core.files import whole_file
from core.names import PLACEHOLDER
from explorer.access import CorpusView, KeptAnswers, LakeReader, Snapshot

Place = tuple[str, int]  # dataset, episode_index
DURATION = "coalesce(e.duration_s, e.num_frames / d.fps)"
LENGTHS = ("under 5 s", "5 to 15 s", "15 to 60 s", "a minute or more", "unknown")
# A person has judged the label of the review queue as q
JUDGED = (
    "EXISTS (FROM current_corrections c WHERE c.dataset = q.dataset AND c.episode_index = q.episode_index"
    " AND (c.status = 'accepted' OR c.status = 'rejected' AND c.base_label_run = q.label_run))"
)


@dataclass(frozen=True)
class Facet:
    """A column that episodes are chosen by; `sql` is over the view `episodes` as e, and
    JOINS.

    One that is not `listed` is for addresses, such as those that Dagster links to, and
    shown only where it is chosen.
    """

    name: str
    title: str
    sql: str
    listed: bool = True


FACETS = (
    Facet("dataset", "Dataset", "e.dataset"),
    Facet("chunk", "Chunk", "e.chunk::VARCHAR", listed=False),
    Facet("task", "Task", "coalesce(e.task, '')"),
    Facet("robot", "Robot", "coalesce(d.robot, 'unknown')"),
    Facet("license", "Licence", "coalesce(d.license, 'not stated')"),
    Facet("split", "Split", "coalesce(s.split, 'none')"),
    Facet(
        "success",
        "Success",
        "CASE e.success WHEN true THEN 'yes' WHEN false THEN 'no' ELSE 'unknown' END",
    ),
    Facet("end_by", "End by", "coalesce(q.end_by, 'not labelled')"),
    Facet("reason", "Usable", "coalesce(e.reason, 'ok')"),
    Facet(
        "annotator",
        "Label by",
        f"coalesce({made_by_sql('r.annotator', 'l.steps_from', follows_sql('r.annotator', label='a'))}, 'no label')",
    ),
    Facet("label_run", "Label version", "coalesce(a.label_run, '')"),
    Facet(
        "quality",
        "Signs in the label",
        "CASE WHEN a.label_run IS NULL THEN 'no label' ELSE coalesce(sign.why, 'no sign') END",
    ),
    Facet("demonstration", "As a demonstration", f"coalesce(demo.main, '{NOT_MEASURED}')"),
    Facet(
        "length",
        "Length",
        f"CASE WHEN {DURATION} < 5 THEN '{LENGTHS[0]}' WHEN {DURATION} < 15 THEN '{LENGTHS[1]}' WHEN {DURATION} < 60"
        f" THEN '{LENGTHS[2]}' WHEN {DURATION} >= 60 THEN '{LENGTHS[3]}' ELSE '{LENGTHS[4]}' END",
    ),
)
BY_NAME = {f.name: f for f in FACETS}
FORMER_VALUES = {"annotator": {HUMAN: BY_PEOPLE}}  # of addresses that people kept
# What checks found that nobody accepted; no row of a person's stands behind it
OPEN_CHECKS = "(SELECT DISTINCT dataset, episode_index, check_name, '' AS mark_id FROM checks WHERE NOT is_accepted)"
# What people say of episodes, and checks: a title, and the view and the column over the lake
MARKS = {
    "check": ("Fault found by a check", OPEN_CHECKS, "check_name"),
    "tag": ("Tag", "current_tags", "tag"),
    "assigned": ("Assigned to", "current_assignments", "person"),
}
# Numbers that episodes are chosen by, from one to another: a title, the column of the index, and of the lake
RANGES = {
    "seconds": ("Length in seconds", "duration_s", DURATION),
    "confidence": ("Confidence of the label", "confidence", "l.confidence"),
}
# What lists can be ordered by: a title, and the columns of the index
SORTS = {
    "episode": ("dataset and number", "row"),
    "shortest": ("shortest first", "duration_s, row"),
    "longest": ("longest first", "duration_s DESC NULLS LAST, row"),
    "steps": ("most steps first", "num_steps DESC, row"),
    "confidence": ("least sure first", "confidence NULLS LAST, row"),
    "demonstration": ("worst demonstrations first", "demonstration_score NULLS LAST, row"),
    "jump": ("largest jump of progress first", "jump DESC NULLS LAST, row"),
    "end": ("lowest end of progress first", "end_progress NULLS LAST, row"),
}
OF_EPISODE = "{0}.dataset = e.dataset AND {0}.episode_index = e.episode_index"
OF_LABEL = f"{OF_EPISODE} AND {{0}}.label_run = a.label_run"
SIGNS = f"(SELECT dataset, episode_index, signs[1] AS why FROM review_queue q WHERE NOT {JUDGED})"
# Tables beside `episodes`, by alias: the table, on what it is joined, and which one has to be joined before
JOINS = {
    "d": ("datasets", "{0}.dataset = e.dataset"),
    "s": ("splits", OF_EPISODE),
    "a": ("active_runs", OF_EPISODE),
    "r": ("label_runs", "{0}.label_run = a.label_run"),
    "l": ("episode_labels", OF_LABEL),
    "q": ("label_quality", OF_LABEL),
    "sign": (SIGNS, OF_EPISODE),
    "demo": ("demonstration_quality", OF_EPISODE),
}


def episodes_sql(columns: str, condition: str) -> str:
    """A query of columns of `episodes` as e, joined with what the columns and the condition name."""
    aliases = set(re.findall(r"\b(\w+)\.", f"{columns} {condition}"))
    # These are joined by the active label run
    aliases |= {"a"} if aliases & {"r", "l", "q"} else set()
    joins = [
        f"LEFT JOIN {table} {alias} ON {on.format(alias)}"
        for alias, (table, on) in JOINS.items()
        if alias in aliases
    ]
    return " ".join(
        (f"SELECT {columns} FROM episodes e", *joins, f"WHERE {condition}" if condition else "")
    ).strip()


def _marks_by_place(reader: LakeReader, kind: str) -> dict[Place, list[tuple[str, str]]]:
    """What is said of each episode, and the row that says it."""

    def find() -> dict[Place, list[tuple[str, str]]]:
        _, view, column = MARKS[kind]
        marks: dict[Place, list[tuple[str, str]]] = {}
        sql = f"SELECT dataset, episode_index, {column}, mark_id FROM {view} ORDER BY 3, 1, 2"
        for dataset, episode_index, value, mark_id in reader.rows(sql):
            marks.setdefault((intern(dataset), episode_index), []).append((intern(value), mark_id))
        return marks

    return reader.while_nothing_is_said(("tags", kind), find)


def places_by_value(reader: LakeReader, kind: str) -> dict[str, list[Place]]:
    """The episodes of each tag, or of each person that some are assigned to."""

    def find() -> dict[str, list[Place]]:
        places: dict[str, list[Place]] = {}
        for place, marks in _marks_by_place(reader, kind).items():
            for value, _ in marks:
                places.setdefault(value, []).append(place)
        return {value: sorted(places[value]) for value in sorted(places)}

    return reader.while_nothing_is_said(("places", kind), find)


def tags_of(reader: LakeReader, places: list[Place]) -> dict[Place, dict[str, Any]]:
    """Of each episode its `tags`, the `person` who has it, and the row that says so
    (`assignment`); None: nobody.
    """
    tags = _marks_by_place(reader, "tag")
    people = _marks_by_place(reader, "assigned")
    tags_by_place = {}
    for place in places:
        person, assignment = people.get(place, [(None, None)])[-1]
        place_tags = [tag for tag, _ in tags.get(place, [])]
        tags_by_place[place] = {"tags": place_tags, "person": person, "assignment": assignment}
    return tags_by_place


VERSION = 11  # of the index's tables; a file of another is not read
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
# The review queue without what people have judged
REVIEW_SQL = f"""
    SELECT dataset, episode_index, task, label_run, score, signs, why, failure_signs FROM review_queue q
    WHERE dataset = $1 AND NOT {JUDGED}"""
# The strongest sign is the one that lists of episodes show, so that they and the queue tell of the same episodes
SIGN_SQL = """
    UPDATE raw SET quality = v.signs[1] FROM review v
    WHERE raw.dataset = v.dataset AND raw.episode_index = v.episode_index"""
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
    `tasks`, `steps`, `step_rows` (which episodes have a step) and `review` (what a person
    should look at).

    newest_statement: number of the newest statement that it has seen. once: what pages counted in it.
    """

    snapshot: Snapshot
    newest_statement: int
    con: duckdb.DuckDBPyConnection = field(repr=False)
    made_in_s: float
    once: KeptAnswers = field(default_factory=lambda: KeptAnswers(MOST_COUNTED), repr=False)

    def covers(self, reader: LakeReader) -> bool:
        """Does it hold all that a reader sees? While people speak, pages leave out what was judged since."""
        if self.snapshot.number < reader.snapshot():
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
            reader.state, reader.words.newest, con, max(took, QUICK_S * (num_episodes > LARGE))
        )

    def _in_file(self, reader: LakeReader) -> duckdb.DuckDBPyConnection:
        """The index in its file, which is made where it is missing; in memory where no
        file can be written.
        """
        path = self._folder / f"index-{VERSION}-{reader.snapshot()}-{reader.words.newest}.duckdb"
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
    con.execute(INDEX_SQL)
    return con
