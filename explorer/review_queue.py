"""The review queue as one works through it: what is in it, what comes next, how many are left, at what pace."""

from dataclasses import dataclass, replace
from typing import Any
from urllib.parse import quote, urlencode

from starlette.datastructures import QueryParams

from explorer.access import LakeReader
from explorer.index import Indexed
from explorer.marks import places_by_value

# Of the view review_queue: kind in the address, title, and the reason as the view words it (None: any)
SIGNS = {
    "all": ("All signs", None),
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
ORDER = "score DESC, dataset, episode_index"
LONGEST_GAP_S = 300  # between two judgements of one sitting
# Who judged how many labels in the last day, and how long one took
PACE_SQL = f"""
    SELECT author, count(*) AS judged, median(gap) FILTER (gap < {LONGEST_GAP_S}) AS seconds FROM (
      SELECT author, epoch(created_at - lag(created_at) OVER (PARTITION BY author ORDER BY created_at)) AS gap
      FROM corrections WHERE created_at > now() - INTERVAL 1 DAY)
    GROUP BY 1 ORDER BY 2 DESC, 1 LIMIT 10"""
Episode = tuple[str, int]


@dataclass(frozen=True)
class ReviewQueue:
    """Labels with a sign of doubt, the oddest first: of one kind; of one dataset, of one person, or of all."""

    kind: str = "all"
    dataset: str | None = None
    person: str | None = None

    @classmethod
    def of(cls, query: QueryParams) -> "ReviewQueue | None":
        """The queue that an episode's address names; None where it names none."""
        kind = query.get("queue")
        return cls(kind, query.get("of") or None, query.get("for") or None) if kind in SIGNS else None

    @property
    def title(self) -> str:
        return SIGNS[self.kind][0]

    @property
    def page(self) -> str:
        """The address of its list."""
        query = {"kind": self.kind, "dataset": self.dataset, "person": self.person}
        return f"/review?{urlencode({name: value for name, value in query.items() if value})}"

    def at(self, episode: Episode) -> str:
        """The address of an episode as one of this queue."""
        dataset, episode_index = episode
        query = {"queue": self.kind, "of": self.dataset, "for": self.person}
        chosen = urlencode({name: value for name, value in query.items() if value})
        return f"/episode/{quote(dataset, safe='')}/{episode_index}?{chosen}"

    def where(self, reader: LakeReader, indexed: Indexed) -> tuple[str, dict[str, Any]]:
        """A condition over the index's table `review`, and its values: without what was judged since the index."""
        parts: list[str] = []
        values: dict[str, Any] = {}
        if judged := judged_since(reader, indexed):
            parts.append("dataset || ' ' || episode_index NOT IN (SELECT unnest($judged::VARCHAR[]))")
            values["judged"] = judged
        why = SIGNS[self.kind][1]
        if why is not None:
            parts.append("list_contains(why, $why)")
            values["why"] = why
        if self.dataset is not None:
            parts.append("dataset = $dataset")
            values["dataset"] = self.dataset
        if self.person is not None:
            parts.append(
                "(dataset, episode_index) IN (SELECT (unnest($datasets::VARCHAR[]), unnest($numbers::BIGINT[])))"
            )
            theirs = places_by_value(reader, "assigned").get(self.person, [])
            values |= {"datasets": [d for d, _ in theirs], "numbers": [number for _, number in theirs]}
        return " AND ".join(parts) or "true", values


@dataclass(frozen=True)
class QueuePlace:
    """Where an episode stands in a queue. number: from 1, None: it is not, or no longer, in it; total: that are left.

    first, previous, following: other episodes of the queue, None where there is none.
    """

    queue: ReviewQueue
    number: int | None
    total: int
    first: Episode | None
    previous: Episode | None
    following: Episode | None
    label_run: str | None = None
    why: tuple[str, ...] = ()

    @property
    def after(self) -> str:
        """Where one goes from here: the next one, or the list at its end."""
        return self.queue.at(self.following) if self.following else self.queue.page

    @property
    def before(self) -> str | None:
        return self.queue.at(self.previous) if self.previous else None


def place_of(reader: LakeReader, indexed: Indexed, queue: ReviewQueue, dataset: str, episode_index: int) -> QueuePlace:
    """Where an episode stands; one that is no longer in the queue is followed by the queue's first."""
    where, values = queue.where(reader, indexed)
    total = num_left(reader, indexed, queue)
    of_episode = values | {"d": dataset, "e": episode_index}
    own = indexed.dicts(
        f"SELECT score, label_run, why FROM review WHERE {where} AND dataset = $d AND episode_index = $e", **of_episode
    )
    first = _episode(indexed, where, values, ORDER)
    if not own:
        return QueuePlace(queue, None, total, first, None, first)
    here = of_episode | {"s": own[0]["score"]}
    is_before = "(score > $s OR score = $s AND (dataset, episode_index) < ($d, $e))"
    is_after = "(score < $s OR score = $s AND (dataset, episode_index) > ($d, $e))"
    [ahead] = indexed.dicts(f"SELECT count(*) AS num FROM review WHERE {where} AND {is_before}", **here)
    backwards = "score, dataset DESC, episode_index DESC"
    place = QueuePlace(
        queue,
        ahead["num"] + 1,
        total,
        first,
        _episode(indexed, f"{where} AND {is_before}", here, backwards),
        _episode(indexed, f"{where} AND {is_after}", here, ORDER),
    )
    return replace(place, label_run=own[0]["label_run"], why=tuple(own[0]["why"]))


def first_of(reader: LakeReader, indexed: Indexed, queue: ReviewQueue) -> Episode | None:
    """The episode to begin with; None: nothing waits."""
    where, values = queue.where(reader, indexed)
    return _episode(indexed, where, values, ORDER)


def num_left(reader: LakeReader, indexed: Indexed, queue: ReviewQueue) -> int:
    """How many labels of a queue nobody has judged yet."""
    where, values = queue.where(reader, indexed)
    return indexed.dicts(f"SELECT count(*) AS num FROM review WHERE {where}", **values)[0]["num"]


def pace(reader: LakeReader) -> list[dict[str, Any]]:
    """Of the last day: `author`, how many they `judged`, and the median `seconds` of one (None: of one alone)."""
    return reader.dicts(PACE_SQL) if reader.has_view("current_corrections") else []


def judged_since(reader: LakeReader, indexed: Indexed) -> list[str]:
    """Episodes (dataset, blank, number) with a correction that is newer than the index."""
    first, last = indexed.snapshot.number + 1, reader.snapshot.number
    if first > last or not reader.has_view("pending_corrections"):
        return []
    sql = (
        "SELECT DISTINCT dataset || ' ' || episode_index "
        f"FROM ducklake_table_insertions('lake', 'main', 'corrections', {first}, {last})"
    )
    return reader.once(("judged since", first), lambda: [place for (place,) in reader.rows(sql)])


def _episode(indexed: Indexed, where: str, values: dict[str, Any], order: str) -> Episode | None:
    rows = indexed.dicts(f"SELECT dataset, episode_index FROM review WHERE {where} ORDER BY {order} LIMIT 1", **values)
    return (rows[0]["dataset"], rows[0]["episode_index"]) if rows else None
