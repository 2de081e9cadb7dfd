"""The review queue as one works through it: what is in it, what comes next, how many are
left, at what pace.
"""

from dataclasses import dataclass
from typing import Any
from urllib.parse import quote, urlencode

from starlette.datastructures import QueryParams

from core.files import queries_of
from explorer.facets import Place, places_by_value
from explorer.site import Visit
from warehouse.lake.views import FAULTY

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
LONGEST_GAP_S = 300  # between two judgements of one sitting
FEWEST_JUDGED = 10  # before they tell how long the rest takes
# Who judged how many episodes in the last day, and how long one took, however often it was saved
PACE_SQL = f"""
    SELECT author, count(*) AS judged, median(took) AS seconds FROM (
      SELECT author, sum(gap) FILTER (gap < {LONGEST_GAP_S}) AS took FROM (
        SELECT author, dataset, episode_index,
               epoch(created_at - lag(created_at) OVER (PARTITION BY author ORDER BY created_at)) AS gap
        FROM corrections WHERE created_at > now() - INTERVAL 1 DAY)
      GROUP BY author, dataset, episode_index)
    GROUP BY 1 ORDER BY 2 DESC, 1 LIMIT 10"""
ASSIGNED_SQL, DONE_SQL = queries_of(__file__)


@dataclass(frozen=True)
class ReviewQueue:
    """Labels with a sign of doubt, the oddest first: of one kind; of one dataset, of one
    person, or of all.
    """

    kind: str = "all"
    dataset: str | None = None
    person: str | None = None
    noun = "queue"

    @classmethod
    def of(cls, query: QueryParams) -> "ReviewQueue | None":
        """The queue that an episode's address names; None where it names none."""
        kind = query.get("queue")
        if kind in SIGNS:
            return cls(kind, query.get("of") or None, query.get("for") or None)
        return None

    @property
    def title(self) -> str:
        return SIGNS[self.kind][0]

    @property
    def is_of_ends(self) -> bool:
        return self.kind in OF_ENDS

    @property
    def page(self) -> str:
        """The address of its list."""
        query = {"kind": self.kind, "dataset": self.dataset, "person": self.person}
        return f"/review?{urlencode({name: value for name, value in query.items() if value})}"

    def at(self, episode: Place) -> str:
        """The address of an episode as one of this queue."""
        dataset, episode_index = episode
        query = {"queue": self.kind, "of": self.dataset, "for": self.person}
        chosen = urlencode({name: value for name, value in query.items() if value})
        return f"/episode/{quote(dataset, safe='')}/{episode_index}?{chosen}"

    def rows(
        self, visit: Visit, clauses: str = "", columns: str = "*", **named_values: Any
    ) -> list[dict[str, Any]]:
        """Rows as of the index's table `review`, without what was judged since then;
        `clauses`: of the query.
        """
        conditions = ["true"]
        values = named_values
        if self.person is not None:
            source = f"({ASSIGNED_SQL})"
            waiting = self._assigned(visit, self.person)
            values["datasets"] = [dataset for dataset, _ in waiting]
            values["numbers"] = [episode_index for _, episode_index in waiting]
        else:
            source = "review"
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

    def _assigned(self, visit: Visit, person: str) -> list[Place]:
        """The episodes that a person has, and that nobody has judged since."""
        reader = visit.reader
        judged = reader.while_nothing_is_said(
            ("done", person), lambda: {*reader.rows(DONE_SQL, person)}
        )
        assigned = places_by_value(reader, "assigned").get(person, [])
        return [place for place in assigned if place not in judged]

    def num_left(self, visit: Visit) -> int:
        """How many labels of the queue nobody has judged yet."""
        return self.rows(visit, columns="count(*) AS num")[0]["num"]

    def first_place(self, visit: Visit) -> Place | None:
        """The episode to begin with; None: nothing waits."""
        rows = self.rows(visit, f"ORDER BY {ORDER} LIMIT 1", "dataset, episode_index")
        return next(((row["dataset"], row["episode_index"]) for row in rows), None)


@dataclass(frozen=True)
class QueuePlace:
    """Where an episode stands in a queue. number: from 1, None: it is not, or no longer,
    in it; total: that are left.

    Addresses: `page` of the queue's list, `after` of the next episode, or of the list at
    the end, `before`.
    """

    page: str
    number: int | None
    total: int
    after: str
    before: str | None = None
    label_run: str | None = None
    why: tuple[str, ...] = ()
    queue: ReviewQueue | None = None


def place_of(visit: Visit, queue: ReviewQueue, dataset: str, episode_index: int) -> QueuePlace:
    """Where an episode stands; one that is no longer in the queue is followed by the queue's first."""
    key = {"d": dataset, "e": episode_index}
    queue_rows = queue.rows(
        visit, "AND dataset = $d AND episode_index = $e", "score, label_run, why", **key
    )

    def address(episode: dict[str, Any] | None) -> str | None:
        if episode:
            return queue.at((episode["dataset"], episode["episode_index"]))
        return None

    if not queue_rows:
        first = queue.first_place(visit)
        after = queue.at(first) if first else queue.page
        return QueuePlace(queue.page, None, queue.num_left(visit), after, queue=queue)
    # One look at the queue: its runs are counted, and the nearest on both sides found
    row = queue_rows[0]
    [around] = queue.rows(visit, columns=AROUND, **key, s=row["score"])
    return QueuePlace(
        queue.page,
        around["ahead"] + 1,
        around["total"],
        address(around["following"]) or queue.page,
        address(around["former"]),
        row["label_run"],
        tuple(row["why"]),
        queue,
    )


def said_since(visit: Visit, kind: str) -> list[str]:
    """Episodes (dataset, blank, number) of which somebody said something of a kind since the index was made."""
    places = visit.reader.places_said_since(kind, visit.index.newest_statement)
    return sorted(f"{dataset} {episode}" for dataset, episode in places)


def counts_are_of_now(visit: Visit) -> bool:
    """Has nothing come since the index was made but what people said, which queues and
    their counts leave out?
    """
    return visit.reader.snapshot.number == visit.index.snapshot.number
