"""When two task texts ask for different things: another object or another goal, not the same in other words.

And which runs of other tasks samples may show.
"""

import hashlib
import re
from bisect import bisect_left
from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from difflib import SequenceMatcher
from functools import cache, lru_cache
from itertools import chain, islice, zip_longest
from operator import itemgetter
from typing import Any

from ingest.episode import EpisodeRecord

# What makes no other task: how something is said, and verbs of a change that can be seen backwards in pictures (a
# drawer that is half open may be on its way to either end)
_SAID_ALONG = """
a an the this that these those its it their his her your my some any all each one both other another
and or then while so with by of for from to into onto in on at up down out off over under back away
please you should must order will now next first finally carefully gently slowly quickly robot arm hand gripper human
is are be task episode demonstration try
left right top bottom front middle center centre side near far inside outside beside between behind
pick put place grasp grab take lift raise carry move transfer bring set lay drop store load return deliver deposit
relocate retrieve fetch collect hold get give hand insert remove stack unstack sort release reach pull push slide
open close shut lock unlock plug unplug screw unscrew fold unfold attach detach switch turn do make let leave
"""
_SAME_THING = (
    ("cup", "mug"),
    ("bin", "basket", "box", "container", "crate"),
    ("table", "counter", "countertop", "desk", "tabletop"),
    ("cloth", "towel", "rag", "napkin"),
    ("pan", "pot", "skillet"),
    ("bottle", "flask"),
    ("plate", "dish", "saucer"),
    ("object", "item", "thing", "toy"),
    ("cube", "block", "brick"),
    ("clean", "wipe", "tidy", "clear"),
    ("press", "hit", "tap", "touch"),
)
MOST = 8  # runs that a chunk takes of one split
MOST_TASKS = 200  # looked at for them
MOST_OWN_TASKS = 20  # of a chunk, that the others are compared with
_WORD = re.compile(r"[^\W\d_]+|\d+")
# Likeness of two words from which on they count as one misspelt or inflected
_LIKE = 0.8
_LIKE_WITHOUT_SPACES = 0.4


@lru_cache(maxsize=1 << 16)  # each run of a chunk is compared with each, by the same few texts
def are_other_tasks(task: str | None, other_task: str | None) -> bool:
    """Do the texts ask for different things: does each name something that the other does not?

    A text that only says more than the other may be the same task, and so may one that says it in
    other words. Where nobody knows, tasks count as the same.

    Example: "Put the cup on the plate" and "Place the pear on the plate" are; "Grab the cup, set it
    on the plate" and "Put the blue mug on the plate" are not.
    """
    words = _things(task or "")
    other_words = _things(other_task or "")
    return _has_own(words, other_words) and _has_own(other_words, words)


def _has_own(words: frozenset[str], other_words: frozenset[str]) -> bool:
    """Is there a word that none of the others means as well?"""

    def is_shared(word: str) -> bool:
        return any(_mean_the_same(word, other_word) for other_word in other_words)

    return not all(map(is_shared, words))


@cache
def _things(text: str) -> frozenset[str]:
    """What a text names, as stems: objects, places, colours, numbers, and actions of their own kind."""
    stems = {_stem(word) for word in _WORD.findall(text.lower())}
    return frozenset(_MEANING.get(stem, stem) for stem in stems - _NOTHING)


def _stem(word: str) -> str:
    for ending in ("ing", "es", "ed", "s"):
        if word.endswith(ending) and len(word) - len(ending) >= 3:
            word = word.removesuffix(ending)
            break
    if len(word) > 3 and word[-1] == word[-2]:
        word = word[:-1]
    if len(word) > 3:
        return word.removesuffix("e")
    return word


@cache
def _mean_the_same(first_word: str, other_word: str) -> bool:
    """Are two stems one word, perhaps misspelt? Of scripts without spaces a "word" is a clause."""
    if first_word == other_word:
        return True
    if min(len(first_word), len(other_word)) < 4:
        return False
    likeness = SequenceMatcher(None, first_word, other_word).ratio()
    return likeness >= (
        _LIKE if first_word.isascii() and other_word.isascii() else _LIKE_WITHOUT_SPACES
    )


_NOTHING = frozenset(map(_stem, _SAID_ALONG.split()))
_MEANING: dict[str, str] = {}
for _group in _SAME_THING:
    _MEANING |= dict.fromkeys(map(_stem, _group), _stem(_group[0]))


# Samples of a chunk must not depend on which other chunks are built, so which runs of other tasks they may show is
# decided when the dataset is listed. The runs stand on a ring, by hashes, and a chunk takes the next ones from a point
# of its own: when runs come or go, only the chunks whose neighbours these are get others


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
    by_split: dict[str, dict[str, dict[str, int]]] = defaultdict(lambda: defaultdict(dict))
    for record in records:
        if (
            record.task
            and record.videos
            and record.episode_index not in unusable
            and record.group in split_of_group
        ):
            runs_of_task = by_split[split_of_group[record.group]][record.task]
            runs_of_task[record.source_id] = record.episode_index

    chosen = []
    for name, runs_by_task in sorted(by_split.items()):
        tasks = _ring({task: task for task in runs_by_task})
        runs = {task: _ring(task_runs) for task, task_runs in runs_by_task.items()}
        for chunk, own_tasks in sorted(_tasks_of_chunks(runs_by_task, chunk_size).items()):
            place = _hash(f"{dataset}\0{chunk}\0{name}")
            foreign_tasks = _other_than(own_tasks, _after(tasks, place))
            # Beyond the chunk: first a run of each task, then a second one of each, and so on
            chunk_indices = range(chunk * chunk_size, (chunk + 1) * chunk_size)
            outside_runs = [
                _without(_after(runs[task], place), chunk_indices) for task in foreign_tasks
            ]
            in_turn = (i for i in chain.from_iterable(zip_longest(*outside_runs)) if i is not None)
            chosen += [
                {"chunk": chunk, "split": name, "episode_index": i}
                for i in sorted(islice(in_turn, MOST))
            ]
    return chosen


def _without(indices: Iterator[int], chunk_indices: range) -> Iterator[int]:
    return (index for index in indices if index not in chunk_indices)


def _other_than(own_tasks: Sequence[str], tasks: Iterator[str]) -> list[str]:
    def is_other(task: str) -> bool:
        return any(are_other_tasks(task, own_task) for own_task in own_tasks)

    return list(filter(is_other, islice(tasks, MOST_TASKS)))


def _tasks_of_chunks(
    runs_by_task: Mapping[str, Mapping[str, int]], chunk_size: int
) -> dict[int, list[str]]:
    tasks: dict[int, set[str]] = defaultdict(set)
    for task, task_runs in runs_by_task.items():
        for episode_index in task_runs.values():
            tasks[episode_index // chunk_size].add(task)
    return {chunk: sorted(of_chunk)[:MOST_OWN_TASKS] for chunk, of_chunk in tasks.items()}


def _hash(text: str) -> bytes:
    return hashlib.sha256(text.encode()).digest()
