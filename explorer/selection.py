"""Which episodes a URL asks for: facets, words and an order; the same as SQL over the
lake, and as commands.
"""

import math
import shlex
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from itertools import chain
from typing import Any
from urllib.parse import urlencode

from starlette.datastructures import QueryParams

from core.files import queries_of
from explorer.access import LakeReader, PageError
from explorer.index import (
    BY_NAME,
    FACETS,
    FORMER_VALUES,
    LENGTHS,
    MARKS,
    RANGES,
    SORTS,
    Facet,
    Indexed,
    Place,
    episodes_sql,
    places_by_value,
)  # fmt: skip
from warehouse.lake.connection import literal

PAGE = 48  # episodes of one page
MAX_VALUES = 200  # of a facet, the commonest
MAX_WORDS = 8
MAX_CHARS = 200
MAX_PICKED = 500  # single episodes of an address
Chosen = tuple[tuple[str, tuple[str, ...]], ...]  # names, each with values


def _chosen_values(name: str, query: QueryParams) -> tuple[str, ...]:
    """The values of a facet or mark in an address; an address of an earlier version may
    have a former word for one.
    """
    present_words = FORMER_VALUES.get(name, {})
    return _distinct([present_words.get(value, value) for value in query.getlist(name)])


def _distinct(values: Iterable[str]) -> tuple[str, ...]:
    return tuple(sorted(set(values)))


def _in_list(values: Iterable[str]) -> str:
    return f"IN ({', '.join(map(literal, values))})"


def _is_one_of(facet: str, values: tuple[str, ...]) -> str:
    """A condition over the index. A value that does not exist becomes NULL and matches nothing, where a plain cast
    would fail the query.
    """
    kind = f"{facet}_word" if BY_NAME[facet].listed else "INTEGER"
    casts = (f"TRY_CAST({literal(value)} AS {kind})" for value in values)
    return f"{facet} IN ({', '.join(casts)})"


IN_TEXTS_SQL, IN_LAKE_SQL, ROWS_SQL, COUNT_MARKS_SQL, SHARDS_SQL = queries_of(__file__)
OF_EPISODES = "(e.dataset, e.episode_index) IN"


def _range(name: str, query: QueryParams) -> tuple[str, float | None, float | None]:
    """From where to where an address wants a number. Raises PageError (400)."""
    ends = []
    for end in ("from", "to"):
        text = query.get(f"{name}_{end}", "")
        try:
            value = float(text) if text else None
        except ValueError:
            value = math.nan
        if value is not None and not math.isfinite(value):
            raise PageError(f"{name}_{end}: {text[:20]!r} is no number", 400)
        ends.append(value)
    return name, ends[0], ends[1]


def _picked_places(texts: list[str]) -> tuple[Place, ...]:
    """Single episodes that an address names, each as "dataset number". Raises PageError (400)."""
    if len(texts) > MAX_PICKED:
        raise PageError(f"{len(texts)} episodes are picked: {MAX_PICKED} at most", 400)
    picked = set()
    for text in texts:
        dataset, _, number = text.rpartition(" ")
        if not dataset or not number.isdecimal() or len(number) > 15:
            raise PageError(f"pick={text[:60]!r} is no dataset and number of an episode", 400)
        picked.add((dataset, int(number)))
    return tuple(sorted(picked))


def _page_number(text: str) -> int:
    """A page of a list as a URL names it. Raises PageError (400)."""
    if not text.isdecimal() or not 1 <= int(text) <= 10**6:
        raise PageError(f"page {text[:20]!r} is no number of a page", 400)
    return int(text)


@dataclass(frozen=True)
class EpisodeSelection:
    """Episodes that have, of each named facet or mark, one of the values, and all of the
    words in their task or steps.

    ranges: (name, from, to), None: without end. picked: these alone. rows: the index's
    numbers of the episodes that marks, which people say, and picks leave, None: of all;
    `at` finds them.
    """

    chosen: Chosen = ()
    words: tuple[str, ...] = ()
    sort: str = "episode"
    page: int = 1
    ranges: tuple[tuple[str, float | None, float | None], ...] = ()
    picked: tuple[Place, ...] = ()
    rows: tuple[int, ...] | None = None

    @classmethod
    def of(cls, query: QueryParams) -> "EpisodeSelection":
        """From a URL's query. Raises PageError (400) where it makes no sense."""
        chosen = tuple(
            (name, _chosen_values(name, query)) for name in (*BY_NAME, *MARKS) if name in query
        )
        words = tuple(query.get("q", "").lower().split())
        if len(words) > MAX_WORDS or len(" ".join(words)) > MAX_CHARS:
            raise PageError(
                f"at most {MAX_WORDS} words and {MAX_CHARS} characters can be searched for", 400
            )
        sort = query.get("sort", "episode")
        if sort not in SORTS:
            raise PageError(f"lists are ordered by {', '.join(SORTS)}; not by {sort[:40]!r}", 400)
        ranges = tuple(r for name in RANGES if (r := _range(name, query))[1:] != (None, None))
        page = _page_number(query.get("page", "1"))
        return cls(chosen, words, sort, page, ranges, _picked_places(query.getlist("pick")))

    def at(self, reader: LakeReader, index: Indexed) -> "EpisodeSelection":
        """This selection with the episodes that its marks and picks leave, as people have
        marked them by now.
        """
        if not self.marks and not self.picked:
            return self
        of_each: list[set[Place]] = [set(self.picked)] if self.picked else []
        for name, values in self.marks:
            by_value = places_by_value(reader, name)
            of_each.append(set(chain.from_iterable(by_value.get(value, ()) for value in values)))
        places = sorted(set.intersection(*of_each))
        rows = index.rows(ROWS_SQL, [d for d, _ in places], [e for _, e in places])
        return replace(self, rows=tuple(row for (row,) in rows))

    @property
    def narrowed(self) -> bool:
        return bool(self.chosen or self.words or self.ranges or self.picked)

    @property
    def marks(self) -> Chosen:
        return tuple((name, values) for name, values in self.chosen if name in MARKS)

    def toggled(self, name: str, value: str) -> "EpisodeSelection":
        """This selection with a value of a facet or mark more, or less where it has it."""
        values = dict(self.chosen)
        values[name] = _distinct({*values.get(name, ())} ^ {value})
        return replace(self, chosen=tuple((n, v) for n, v in values.items() if v), page=1)

    def url(self, path: str = "/episodes", **changes: str | int) -> str:
        """The URL of this selection; `changes`: another sort or page."""
        query: list[tuple[str, str]] = []
        for name, values in self.chosen:
            query += [(name, value) for value in values]
        for name, low, high in self.ranges:
            query += [
                (f"{name}_{end}", f"{v:g}")
                for end, v in (("from", low), ("to", high))
                if v is not None
            ]
        query += [("pick", f"{dataset} {episode_index}") for dataset, episode_index in self.picked]
        sort = changes.get("sort", self.sort)
        page = changes.get("page", self.page)
        parameters = (("q", " ".join(self.words), ""), ("sort", sort, "episode"), ("page", page, 1))
        query += [(name, str(value)) for name, value, default in parameters if value != default]
        if query:
            return f"{path}?{urlencode(query)}"
        return path

    @property
    def values(self) -> dict[str, Any]:
        """What `where` has as a parameter."""
        return {} if self.rows is None else {"rows": list(self.rows)}

    def where(self) -> str:
        """A condition over the index's table `episodes`."""
        parts = self._conditions(_is_one_of, IN_TEXTS_SQL, 1)
        if self.rows is not None:
            parts.append("row IN (SELECT unnest($rows::INTEGER[]))")
        return " AND ".join(parts) or "true"

    def lake_sql(self) -> str:
        """A query over the lake that gives dataset and episode_index of every episode of the selection."""
        conditions = self._conditions(
            lambda name, values: f"{BY_NAME[name].sql} {_in_list(values)}", IN_LAKE_SQL, 2
        )
        for name, values in self.marks:
            _, view, column = MARKS[name]
            marked = f"FROM {view} WHERE {column} {_in_list(values)}"
            conditions.append(f"{OF_EPISODES} (SELECT (dataset, episode_index) {marked})")
        if self.picked:
            places = ", ".join(f"({literal(dataset)}, {number})" for dataset, number in self.picked)
            conditions.append(f"{OF_EPISODES} ({places})")
        return episodes_sql("e.dataset, e.episode_index", " AND ".join(conditions))

    def _conditions(
        self, is_one_of: Callable[[str, tuple[str, ...]], str], word_sql: str, range_column: int
    ) -> list[str]:
        """What facets, words and ranges ask for. is_one_of: has a facet one of some values?

        word_sql: is a {word} in the texts? range_column: which of those that RANGES names.
        """
        conditions = [is_one_of(name, values) for name, values in self.chosen if name in BY_NAME]
        conditions += [word_sql.format(word=literal(word)).strip() for word in self.words]
        for name, low, high in self.ranges:
            ends = ((">=", low), ("<=", high))
            column = RANGES[name][range_column]
            conditions += [f"{column} {sign} {end!r}" for sign, end in ends if end is not None]
        return conditions

    def commands(self, workspace: str, snapshot: str, allowing: str = "") -> list[tuple[str, str]]:
        """What reproduces the selection: titles and lines for the shell.

        snapshot: options such as --release. allowing: options of exports that let in what
        has no open licence.
        """
        query = shlex.quote(self.lake_sql())
        snapshot_option = f" {snapshot}" if snapshot else ""
        place = f"--workspace {shlex.quote(workspace)}"
        release = (snapshot_option if "--release" in snapshot_option else "") + (
            f" {allowing}" if allowing else ""
        )
        shards = f"proccorpus sql {shlex.quote(self.shards_sql())}{snapshot_option} --format json {place}"
        return [
            ("The list", f"proccorpus sql {query}{snapshot_option} --format csv {place}"),
            (
                "LeRobot dataset",
                f"proccorpus export lerobot --where {query}{release} --out exported {place}",
            ),
            (
                "Samples (datasets)",
                f"proccorpus export datasets --where {query}{release} --out samples {place}",
            ),
            ("In which shards (WebDataset)", shards),
        ]

    def shards_sql(self) -> str:
        """A query that gives the shards that hold the selection's episodes, and these
        episodes' keys in each.
        """
        return SHARDS_SQL.format(episodes=self.lake_sql()).strip()


@dataclass(frozen=True)
class Counted:
    """A value of a facet, how many episodes have it, and the URL that chooses it, or no longer does."""

    value: str
    count: int
    chosen: bool
    url: str


def count(index: Indexed, selection: EpisodeSelection) -> int:
    return _counts(index, selection)[""].get("", 0)


def facets(index: Indexed, selection: EpisodeSelection) -> list[tuple[Facet, list[Counted]]]:
    """Every facet with the counts of its values among the episodes that all other facets
    choose: the chosen ones first, then the commonest; lengths by size.
    """
    counts = _counts(index, selection)
    return [
        (f, _facet_values(selection, f.name, counts[f.name])) for f in FACETS if f.name in counts
    ]


def _facet_values(selection: EpisodeSelection, name: str, counts: dict[str, int]) -> list[Counted]:
    """The values of a facet or a mark, and of those chosen also what no episode has."""
    chosen = dict(selection.chosen).get(name, ())
    counts = dict.fromkeys(chosen, 0) | counts
    order = sorted(counts, key=lambda value: (value not in chosen, -counts[value], value))
    if name == "length":
        order = [value for value in LENGTHS if value in counts]
    return [
        Counted(value, counts[value], value in chosen, selection.toggled(name, value).url())
        for value in order
    ]


def _counts(index: Indexed, selection: EpisodeSelection) -> dict[str, dict[str, int]]:
    """How many episodes have which value, by facet: those that the other facets choose;
    under "" all of the selection.

    Of facets that are listed or chosen; the chosen and the commonest values. One query,
    which looks for words once.
    """
    names = [f.name for f in FACETS if f.listed or f.name in dict(selection.chosen)]

    def count_values() -> dict[str, dict[str, int]]:
        counts: dict[str, dict[str, int]] = {name: {} for name in ("", *names)}
        for name, value, episodes in index.rows(
            _counting_query(selection, names), **selection.values
        ):
            counts[name][value] = episodes
        return counts

    return index.once(
        ("counts", selection.chosen, selection.words, selection.ranges, selection.rows),
        count_values,
    )


def counted_marks(
    reader: LakeReader, index: Indexed, selection: EpisodeSelection
) -> list[tuple[str, str, list["Counted"]]]:
    """Name and title of each mark, with the counts of its values among the episodes that all else chooses."""
    facets = []
    for name, (title, _, _) in MARKS.items():
        by_value = places_by_value(reader, name)
        other_selection = replace(
            selection, chosen=tuple(c for c in selection.chosen if c[0] != name), rows=None
        )
        found = other_selection.at(reader, index)
        triples: list[tuple[str, str, int]] = []
        for value, places in by_value.items():
            triples += [(value, *place) for place in places]
        columns = {
            column: [triple[k] for triple in triples]
            for k, column in enumerate(("value", "dataset", "number"))
        }
        sql = COUNT_MARKS_SQL.format(where=found.where())
        counts = dict(index.rows(sql, **columns, **found.values))
        facets.append(
            (name, title, _facet_values(selection, name, dict.fromkeys(by_value, 0) | counts))
        )
    return facets


def _counting_query(selection: EpisodeSelection, names: list[str]) -> str:
    """A query over the index that gives facet, value and episodes."""
    # w: the episodes that have the words; m: those of them that all facets choose
    has_words = replace(selection, chosen=()).where()
    bare = replace(selection, words=(), ranges=(), rows=None)  # which w has applied
    keep_w = "NOT MATERIALIZED" if has_words == "true" else "MATERIALIZED"
    parts = ["SELECT '', '', count(*) FROM m"]

    # A facet with chosen values is counted over what the others choose, so that its other values have counts, too
    for name in names:
        chosen_values = dict(selection.chosen).get(name, ())
        source = "m"
        chosen_first = ""
        if chosen_values:
            other_choices = tuple(c for c in selection.chosen if c[0] != name)
            source = f"w WHERE {replace(bare, chosen=other_choices).where()}"
            chosen_first = f"value {_in_list(chosen_values)} DESC, "
        parts.append(
            f"(SELECT '{name}', {name}::VARCHAR AS value, count(*) FROM {source} GROUP BY 2"
            f" ORDER BY {chosen_first}3 DESC, 2 LIMIT {MAX_VALUES + len(chosen_values)})"
        )
    return (
        f"WITH w AS {keep_w} (SELECT {', '.join(names)} FROM episodes WHERE {has_words}),"
        f" m AS MATERIALIZED (FROM w WHERE {bare.where()}) {' UNION ALL '.join(parts)}"
    )


def episodes_of(index: Indexed, selection: EpisodeSelection) -> list[dict]:
    """The episodes of the selection's page, in its order."""
    order = f"ORDER BY {SORTS[selection.sort][1]}"
    texts = ("dataset", "split", "success", "reason", "annotator", "quality", "demonstration")
    columns = (
        f"{', '.join(texts)}, episode_index, task, num_frames, duration_s, num_steps, end_progress, confidence, jump,"
        " demonstration_score, demonstration_why, row"
    )
    as_texts = ", ".join(f"{name}::VARCHAR AS {name}" for name in texts)
    return index.dicts(
        f"SELECT e.* REPLACE ({as_texts}, nullif(task::VARCHAR, '') AS task) FROM (SELECT {columns} FROM episodes"
        f" WHERE {selection.where()} {order} LIMIT {PAGE} OFFSET {PAGE * (selection.page - 1)}) e {order}",
        **selection.values,
    )
