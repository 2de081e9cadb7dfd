"""Which runs of other tasks, elsewhere in the dataset, the samples of a chunk may show: decided when it is listed.

Samples of a chunk must not depend on which other chunks are built, so what they take from beyond it is what the listing
knows. The runs stand on a ring, by hashes, and a chunk takes the next ones from a point of its own: when runs come or
go, only the chunks whose neighbours these are get others.
"""

import hashlib
from bisect import bisect_left
from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from itertools import chain, islice, zip_longest
from operator import itemgetter
from typing import Any

from ingest.episode import EpisodeRecord
from ingest.task_texts import are_other_tasks

MOST = 8  # runs that a chunk takes of one split
MOST_TASKS = 200  # looked at for them
MOST_OWN_TASKS = 20  # of a chunk, that the others are compared with


def _ring[T](things: Mapping[str, T]) -> list[tuple[bytes, T]]:
    """Things in the order of the hashes of their names, which name them for good."""
    return sorted((_hash(name), thing) for name, thing in things.items())


def _after[T](ring: Sequence[tuple[bytes, T]], place: bytes) -> Iterator[T]:
    """All of them once, from a place on, round and round."""
    start = bisect_left(ring, place, key=itemgetter(0))
    return (thing for _, thing in chain(ring[start:], ring[:start]))


def other_tasks(
    dataset: str,
    records: Sequence[EpisodeRecord],
    split_of_group: Mapping[str, str],
    unusable: Collection[int],
    chunk_size: int,
) -> list[dict[str, Any]]:
    """Runs that samples of a chunk may show to those of their split: rows with chunk, split and episode_index.

    Up to MOST of each chunk and split of the records, of as many other tasks as there are.
    """
    by_split: dict[str, dict[str, list[EpisodeRecord]]] = defaultdict(lambda: defaultdict(list))
    for record in records:
        if record.task and record.videos and record.episode_index not in unusable and record.group in split_of_group:
            by_split[split_of_group[record.group]][record.task].append(record)

    chosen = []
    for name, runs_by_task in sorted(by_split.items()):
        tasks = _ring({task: task for task in runs_by_task})
        runs = {task: _ring({r.source_id: r.episode_index for r in of}) for task, of in runs_by_task.items()}
        for chunk, own_tasks in sorted(_tasks_of_chunks(runs_by_task, chunk_size).items()):
            place = _hash(f"{dataset}\0{chunk}\0{name}")
            others = _other_than(own_tasks, _after(tasks, place))
            # Beyond the chunk: first a run of each task, then a second one of each, and so on
            of_each = [(i for i in _after(runs[task], place) if i // chunk_size != chunk) for task in others]
            in_turn = (i for turn in zip_longest(*of_each) for i in turn if i is not None)
            chosen += [{"chunk": chunk, "split": name, "episode_index": i} for i in sorted(islice(in_turn, MOST))]
    return chosen


def _other_than(own_tasks: Sequence[str], tasks: Iterator[str]) -> list[str]:
    return [task for task in islice(tasks, MOST_TASKS) if any(are_other_tasks(task, own) for own in own_tasks)]


def _tasks_of_chunks(runs_by_task: Mapping[str, Sequence[EpisodeRecord]], chunk_size: int) -> dict[int, list[str]]:
    tasks: dict[int, set[str]] = defaultdict(set)
    for task, records in runs_by_task.items():
        for record in records:
            tasks[record.episode_index // chunk_size].add(task)
    return {chunk: sorted(of_chunk)[:MOST_OWN_TASKS] for chunk, of_chunk in tasks.items()}


def _hash(text: str) -> bytes:
    return hashlib.sha256(text.encode()).digest()
