"""The review queue as one works through it: what is in it, what comes next, how many are left."""

from dataclasses import dataclass
from typing import Any, NamedTuple
from urllib.parse import quote, urlencode

from starlette.datastructures import QueryParams

from core.files import queries_of
from explorer.access import LakeReader, PageError
from explorer.corrected_labels import corrected_places
from explorer.index import Place, places_by_value
from explorer.selection import EpisodeSelection
from explorer.site import Visit
from warehouse.lake.views import FAULTY

LISTED_SQL, DONE_SQL, FOLLOWING_SQL, CHANGED_SQL, WAITING_SQL = queries_of(__file__)
# Kinds that no sign tells
FOLLOWING = "follows"
CHANGED = "changed"
WAITING = "corrections"
LISTINGS = {FOLLOWING: FOLLOWING_SQL, CHANGED: CHANGED_SQL, WAITING: WAITING_SQL}
MOST_SELECTED = 5_000  # runs of a selection of the gallery
# Of the view review_queue: kind in the address, title, and the sign as the view words it (None: any)
SIGNS = {
    "all": ("All signs", None),
    "checks": ("Faults found by checks", FAULTY),
    "unfinished": ("Look unfinished", "looks unfinished"),
    "doubtful": ("May be unfinished", "may be unfinished"),
    "disagreement": ("Labels disagree", "labels of two runs disagree"),
    "unsure": ("Low confidence", "the annotator is unsure"),
    "jumps": ("Progress jumps", "progress jumps"),
    "asked": ("Asked for", "the annotator asks for a person"),
    "contradicts": ("Against the source", "label and source contradict each other about success"),
    "length": ("Odd length", "odd length"),
    "order": ("Odd order", "odd order of steps"),
    "moments": ("Steps of a moment", "a step of a moment"),
    "unnamed": ("Steps without a name", "steps without a name"),
    FOLLOWING: ("Labelled like a reference", None),
    CHANGED: ("Labelled anew: old and new", None),
    WAITING: ("Corrections to look at again", None),
}
OF_ENDS = ("unfinished", "doubtful")  # kinds that ask how runs ended: who says it has answered
ORDER = "score DESC, dataset, episode_index"
# What stands before and after the episode $d, $e with the score $s in that order
IS_BEFORE = "(score > $s OR score = $s AND (dataset, episode_index) < ($d, $e))"
IS_AFTER = "(score < $s OR score = $s AND (dataset, episode_index) > ($d, $e))"
NAMED = "{dataset: dataset, episode_index: episode_index}"
RANK = "(-score, dataset, episode_index)"
AROUND = f"""
    count(*) AS total, count(*) FILTER {IS_BEFORE} AS ahead,
    max_by({NAMED}, {RANK}) FILTER {IS_BEFORE} AS former,
    min_by({NAMED}, {RANK}) FILTER {IS_AFTER} AS following"""


class QueueEntry(NamedTuple):
    """Why an episode is in a queue that no sign tells; `about`: the label, or the correction, that is meant besides."""

    score: float | None = None
    reason: str | None = None
    about: str | None = None


@dataclass(frozen=True)
class ReviewQueue:
    """Labels to look at, the most doubtful first: of one kind; of one dataset, of one person, of
    a selection of the gallery (by its address), or of all. camera: that shows runs beside their
    reference.
    """

    kind: str = "all"
    dataset: str | None = None
    person: str | None = None
    selection: str | None = None
    camera: str | None = None

    @classmethod
    def of(cls, query: QueryParams) -> "ReviewQueue | None":
        """The queue that an episode's address names; None where it names none."""
        if query.get("queue") not in SIGNS:
            return None
        names = ("queue", "of", "for", "among", "camera")
        kind, *values = (query.get(name) or None for name in names)
        return cls(kind or "all", *values)

    @property
    def title(self) -> str:
        """What it is of, in words."""
        title = "This selection" if self.selection is not None else SIGNS[self.kind][0]
        parts = (title, self.dataset, self.person and f"for {self.person}")
        return ", ".join(filter(None, parts))

    @property
    def noun(self) -> str:
        return "queue" if self.selection is None else "selection"

    @property
    def is_of_ends(self) -> bool:
        return self.kind in OF_ENDS

    @property
    def page(self) -> str:
        """The address of its list."""
        if self.selection is not None:
            return f"/episodes?{self.selection}"
        query = {"kind": self.kind, "dataset": self.dataset, "person": self.person}
        return f"/review?{urlencode({name: value for name, value in query.items() if value})}"

    def at(self, episode: Place) -> str:
        """The address of an episode as one of this queue."""
        dataset, episode_index = episode
        values = (self.kind, self.dataset, self.person, self.selection, self.camera)
        query = zip(("queue", "of", "for", "among", "camera"), values, strict=True)
        chosen = urlencode({name: value for name, value in query if value})
        return f"/episode/{quote(dataset, safe='')}/{episode_index}?{chosen}"

    def rows(
        self, visit: Visit, clauses: str = "", columns: str = "*", **named_values: Any
    ) -> list[dict[str, Any]]:
        """Rows as of the index's table `review`, without what was judged since then;
        `clauses`: of the query.
        """
        conditions = ["true"]
        values = named_values
        source = "review"
        judged = []
        places = self._places(visit)
        if places is not None:
            source = f"({LISTED_SQL})"
            values["datasets"] = [dataset for dataset, _ in places]
            values["numbers"] = [episode_index for _, episode_index in places]
            for name in ("scores", "reasons", "abouts"):
                values[name] = [getattr(listed, name[:-1]) for listed in places.values()]
        else:
            judged = said_since(visit, "correction")
        if self.is_of_ends:
            judged += said_since(visit, "outcome")
        if judged:
            conditions.append(
                "dataset || ' ' || episode_index NOT IN (SELECT unnest($judged::VARCHAR[]))"
            )
            values["judged"] = judged
        if sign := SIGNS[self.kind][1]:
            conditions.append("list_contains(signs, $sign)")
            values["sign"] = sign
        if self.dataset is not None:
            conditions.append("dataset = $dataset")
            values["dataset"] = self.dataset
        return visit.index.dicts(
            f"SELECT {columns} FROM {source} WHERE {' AND '.join(conditions)} {clauses}", **values
        )

    def _places(self, visit: Visit) -> dict[Place, QueueEntry] | None:
        """The episodes that it chooses among, which nobody has judged; None: all with a sign."""
        candidates = []
        if self.kind in LISTINGS:
            candidates.append(_listed(visit.reader, self.kind))
        if self.person is not None:
            candidates.append(_assigned(visit.reader, self.person))
        if self.selection is not None:
            candidates.append(_selected(visit, self.selection))
        if not candidates:
            return None
        first, *more_candidates = candidates
        shared = set(first).intersection(*more_candidates)
        return {place: entry for place, entry in first.items() if place in shared}

    def num_left(self, visit: Visit) -> int:
        """How many labels of the queue nobody has judged yet."""
        return self.rows(visit, columns="count(*) AS num")[0]["num"]

    def first_place(self, visit: Visit) -> Place | None:
        """The episode to begin with; None: nothing waits."""
        rows = self.rows(visit, f"ORDER BY {ORDER} LIMIT 1", "dataset, episode_index")
        return next(((row["dataset"], row["episode_index"]) for row in rows), None)


def _selected(visit: Visit, query: str) -> dict[Place, QueueEntry]:
    """The runs of a selection that have a label. Raises PageError: there are too many."""
    selection = EpisodeSelection.of(QueryParams(query)).at(visit.reader, visit.index)
    sql = (
        "SELECT dataset::VARCHAR, episode_index FROM episodes"
        f" WHERE reason = 'ok' AND label_run <> '' AND ({selection.where()})"
    )
    places = visit.index.rows(sql, **selection.values)
    if len(places) > MOST_SELECTED:
        raise PageError(
            f"{len(places):,} runs are selected, {MOST_SELECTED:,} can be accepted at once: narrow it down",
            422,
        )
    corrected = corrected_places(visit.reader)
    return {place: QueueEntry() for place in places if place not in corrected}


def _assigned(reader: LakeReader, person: str) -> dict[Place, QueueEntry]:
    """The episodes that a person has, and that nobody has judged since."""
    judged = reader.while_nothing_is_said(
        ("done", person), lambda: {*reader.rows(DONE_SQL, [person])}
    )
    assigned = places_by_value(reader, "assigned").get(person, [])
    return {place: QueueEntry(reason="assigned") for place in assigned if place not in judged}


def _listed(reader: LakeReader, kind: str) -> dict[Place, QueueEntry]:
    """The episodes of a kind that no sign tells."""
    return reader.while_nothing_is_said(
        ("queue", kind),
        lambda: {
            (dataset, number): QueueEntry(*listed)
            for dataset, number, *listed in reader.rows(LISTINGS[kind])
        },
    )


@dataclass(frozen=True)
class QueuePlace:
    """Where an episode stands in a queue. number: from 1, None: it is not, or no longer,
    in it; total: that are left.

    Addresses: `after` of the next episode, or of the queue's list at the end, `before`.
    """

    queue: ReviewQueue
    number: int | None
    total: int
    after: str
    before: str | None = None
    label_run: str | None = None
    why: tuple[str, ...] = ()


def place_of(visit: Visit, queue: ReviewQueue, dataset: str, episode_index: int) -> QueuePlace:
    """Where an episode stands; one that is no longer in the queue is followed by the queue's first."""
    key = {"d": dataset, "e": episode_index}
    queue_rows = queue.rows(
        visit, "AND dataset = $d AND episode_index = $e", "score, label_run, why", **key
    )
    if not queue_rows:
        first = queue.first_place(visit)
        next_address = queue.at(first) if first else queue.page
        return QueuePlace(queue, None, queue.num_left(visit), next_address)
    # One look at the queue: its runs are counted, and the nearest on both sides found
    row = queue_rows[0]
    [around] = queue.rows(visit, columns=AROUND, **key, s=row["score"])
    former_address, next_address = (
        place and queue.at((place["dataset"], place["episode_index"]))
        for place in (around["former"], around["following"])
    )
    return QueuePlace(
        queue,
        around["ahead"] + 1,
        around["total"],
        next_address or queue.page,
        former_address,
        row["label_run"],
        tuple(row["why"]),
    )


def said_since(visit: Visit, kind: str) -> list[str]:
    """Episodes (dataset, blank, number) of which somebody said something of a kind since the index was made."""
    places = visit.reader.places_said_since(kind, visit.index.newest_statement)
    return sorted(f"{dataset} {episode}" for dataset, episode in places)


def counts_are_of_now(visit: Visit) -> bool:
    """Has nothing come since the index was made but what people said, which queues and
    their counts leave out?
    """
    return visit.reader.snapshot() == visit.index.snapshot.number
