"""Which runs of other tasks, elsewhere in the dataset, the samples of a chunk may show: decided when it is listed.

Samples of a chunk must not depend on which other chunks are built, so what they take from beyond it is what the listing
knows. The runs stand on a ring, by hashes, and a chunk takes the next ones from a point of its own: when runs come or
go, only the chunks whose neighbours these are get others.
"""

import hashlib
from bisect import bisect_left
from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import islice, zip_longest

from ingest.episode import EpisodeRecord
from ingest.task_texts import are_other_tasks

MOST = 8  # runs that a chunk takes of one split
MOST_TASKS = 200  # looked at for them
MOST_OWN_TASKS = 20  # of a chunk, that the others are compared with


@dataclass(frozen=True)
class OtherTask:
    """A run that the samples of a chunk may show to those of its split."""

    chunk: int
    split: str
    episode_index: int


class _Ring[T]:
    """Things in the order of their hashes, round and round."""

    def __init__(self, things: Mapping[str, T]) -> None:
        """`things` by a text that names them for good."""
        hashed = sorted((_hash(name), thing) for name, thing in things.items())
        self._hashes = [place for place, _ in hashed]
        self._things = [thing for _, thing in hashed]

    def after(self, place: bytes) -> Iterator[T]:
        """All of them once, from a place on."""
        start = bisect_left(self._hashes, place)
        yield from self._things[start:]
        yield from self._things[:start]


@dataclass(frozen=True)
class _Split:
    """The usable runs of one split by their task, those without a task left out."""

    runs_by_task: Mapping[str, Sequence[EpisodeRecord]]

    @cached_property
    def tasks(self) -> _Ring[str]:
        return _Ring({task: task for task in self.runs_by_task})

    @cached_property
    def runs(self) -> dict[str, _Ring[int]]:
        """Indices of the episodes of each task."""
        return {
            task: _Ring({record.source_id: record.episode_index for record in records})
            for task, records in self.runs_by_task.items()
        }


def other_tasks(
    dataset: str,
    records: Sequence[EpisodeRecord],
    split_of_group: Mapping[str, str],
    unusable: Collection[int],
    chunk_size: int,
) -> list[OtherTask]:
    """Up to MOST runs of each chunk and split of the records, of as many other tasks as there are."""
    by_split: dict[str, dict[str, list[EpisodeRecord]]] = defaultdict(lambda: defaultdict(list))
    for record in records:
        if record.task and record.videos and record.episode_index not in unusable and record.group in split_of_group:
            by_split[split_of_group[record.group]][record.task].append(record)

    chosen: list[OtherTask] = []
    for name, runs_by_task in sorted(by_split.items()):
        split = _Split(runs_by_task)
        for chunk, own_tasks in sorted(_tasks_of_chunks(runs_by_task, chunk_size).items()):
            place = _hash(f"{dataset}\0{chunk}\0{name}")
            indices = islice(_elsewhere(split, own_tasks, place, chunk, chunk_size), MOST)
            chosen += [OtherTask(chunk, name, index) for index in sorted(indices)]
    return chosen


def _tasks_of_chunks(runs_by_task: Mapping[str, Sequence[EpisodeRecord]], chunk_size: int) -> dict[int, list[str]]:
    tasks: dict[int, set[str]] = defaultdict(set)
    for task, records in runs_by_task.items():
        for record in records:
            tasks[record.episode_index // chunk_size].add(task)
    return {chunk: sorted(of_chunk)[:MOST_OWN_TASKS] for chunk, of_chunk in tasks.items()}


def _elsewhere(split: _Split, own_tasks: Sequence[str], place: bytes, chunk: int, chunk_size: int) -> Iterator[int]:
    """Episodes of other tasks beyond the chunk: first one of each task, then a second one of each, and so on."""
    looked_at = islice(split.tasks.after(place), MOST_TASKS)
    others = [task for task in looked_at if any(are_other_tasks(task, own) for own in own_tasks)]
    of_each = [(i for i in split.runs[task].after(place) if i // chunk_size != chunk) for task in others]
    yield from (i for in_turn in zip_longest(*of_each) for i in in_turn if i is not None)


def _hash(text: str) -> bytes:
    return hashlib.sha256(text.encode()).digest()
