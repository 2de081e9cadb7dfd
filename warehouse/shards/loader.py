"""Samples out of shards, shuffled, mixed and divided, one pass after another, and exactly resumable.

What an epoch gives, and in what order, is planned from the indexes beside the tars:

1. The shards are shuffled and divided among the consumers.
2. A consumer has some of its shards open at once, and takes episodes from them at random into a buffer.
3. Each sample comes from a random episode of the buffer.

A tar is read only where the plan comes to it: a whole entry, when its first sample is due; it is let go after its last.
So resuming costs planning, not reading. All chance comes from `Generator.random` seeded by the sha256 of words: the
same seed and shards give the same order on any machine.
"""

import hashlib
import json
from bisect import bisect_right
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from copy import copy
from dataclasses import asdict, dataclass, field, replace
from fractions import Fraction
from itertools import accumulate, batched, chain, islice, pairwise
from math import isfinite
from pathlib import Path

import numpy as np

from warehouse.shards.shard import Entry, Index, Sample, ShardError, expand, read_entry, read_index

MIN_BUFFER = 64  # episodes
THREADS = 4  # that read ahead
PLAN = 1  # counted up when the same seed gives another order
FINEST = 10**9  # a rate is the nearest fraction with no greater denominator: 1 / 3 is a third


@dataclass(frozen=True)
class LoaderConfig:
    """The samples of an epoch, and how well they are mixed.

    A rate says how often a sample is given per epoch on average: that of its dataset times that of its family (1 where
    none is named). Which samples a broken rate takes goes round: a rate of 0.5 gives one half of them in one epoch, the
    other half in the next; 2.5 gives each twice or thrice. `per_visit` takes so many samples of an episode per epoch,
    and others in the next, until all have had their turn; rates multiply that. Counts are exact to one sample per shard
    and rate, or per episode and rate with `per_visit`.
    """

    seed: int = 0
    families: tuple[str, ...] | None = None  # all
    per_visit: int | None = None  # all
    dataset_rates: Mapping[str, float] = field(default_factory=dict)
    family_rates: Mapping[str, float] = field(default_factory=dict)
    # Episodes held: two samples of one stand side by side once in so many times
    buffer: int = MIN_BUFFER
    interleave: int = 8  # shards of a consumer open at once

    def __post_init__(self) -> None:
        for name in ("per_visit", "buffer", "interleave"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ShardError(f"{name} is {value}, and must be at least 1")
        for kind in ("dataset_rates", "family_rates"):
            for name, rate in getattr(self, kind).items():
                if not (isfinite(rate) and rate >= 0):
                    raise ShardError(
                        f"{kind}: that of {name} is {rate}, and must be a number from 0 on"
                    )

    def rate(self, dataset: str, family: str) -> Fraction:
        if self.families is not None and family not in self.families:
            return Fraction(0)
        rate = self.dataset_rates.get(dataset, 1) * self.family_rates.get(family, 1)
        return Fraction(rate).limit_denominator(FINEST)


class Loader:
    """The part of the shards' samples that falls to one consumer: a worker of a node.

    Iterating gives the rest of the current epoch, then ends; iterating again gives the next one. Every epoch, the parts
    of all consumers together are the whole, each sample once (at rate 1). They differ in length: to keep in step, loop
    over epochs without end. One iteration at a time. Memory: the entries of `config.buffer` episodes, of each only the
    pictures that are shown; with `batches(window=...)`, those of a window more. `ahead`: so many samples, or batches,
    before they are due their entries are read by threads; it gains nothing on a local disk, and hides a bucket's delay.

    Raises ShardError, when it is made or while it gives samples.
    """

    def __init__(
        self,
        shards: Sequence[Path],
        config: LoaderConfig | None = None,
        *,
        node: int = 0,
        num_nodes: int = 1,
        worker: int = 0,
        num_workers: int = 1,
        epoch: int = 0,
        ahead: int = 0,
    ) -> None:
        self.config = config or LoaderConfig()
        self.epoch = epoch
        self._ahead = ahead
        self._shards = sorted(shards, key=lambda p: p.name)
        names = [p.name for p in self._shards]
        repeated = [name for name, next_name in pairwise(names) if name == next_name]
        if repeated:
            raise ShardError(f"shard {repeated[0]} is given twice")
        if not (0 <= node < num_nodes and 0 <= worker < num_workers):
            raise ShardError(
                f"there is no worker {worker} of {num_workers} on node {node} of {num_nodes}"
            )
        # Shards are what is divided among consumers, so one without a shard would give nothing
        consumers = num_nodes * num_workers
        if consumers > len(names):
            raise ShardError(
                f"{num_nodes} nodes x {num_workers} workers are {consumers} consumers, too many for "
                f"{len(names)} shards: at least one shard each; take fewer workers or smaller shards"
            )
        self._mine = slice(worker * num_nodes + node, None, consumers)
        self._position = 0  # what has been given of the epoch, counted in `_unit`
        self._unit: str = "samples"
        names_hash = hashlib.sha256("\n".join(names).encode()).hexdigest()[:16]
        # What a saved position is only good for: another plan, or other shards or settings, give another order
        self._identity = {
            "plan": PLAN,
            "shards": f"{len(names)}, sha256 {names_hash}",
            **{"node": node, "num_nodes": num_nodes, "worker": worker, "num_workers": num_workers},
            **json.loads(json.dumps(asdict(self.config))),
        }

    # Where it stands

    def state_dict(self) -> dict:
        """Where this consumer stands after what was last given; JSON."""
        return {
            "epoch": self.epoch,
            "position": self._position,
            "unit": self._unit,
            "of": self._identity,
        }

    def load_state_dict(self, state: Mapping) -> None:
        """Go on after what had been given when `state` was taken. Raises ShardError where it is not this loader's."""
        try:
            epoch = int(state["epoch"])
            position = int(state["position"])
            unit = str(state["unit"])
            saved = state["of"]
            differ = [
                f"{k} was {saved.get(k)}, now {v}"
                for k, v in self._identity.items()
                if saved.get(k) != v
            ]
        except (KeyError, TypeError, ValueError, AttributeError) as e:
            # A state is JSON that people store and edit: it may be anything
            raise ShardError(f"this is not the state of a loader: {e!r}") from e
        if differ:
            raise ShardError(f"the state is not of these shards and settings: {'; '.join(differ)}")
        self.epoch = epoch
        self._position = position
        self._unit = unit

    # What it gives

    def __iter__(self) -> Iterator[Sample]:
        for (sample,) in self._give("samples", ([item] for item in self._plan())):
            yield sample

    def batches(
        self, size: int | None = None, *, max_tokens: int | None = None, window: int | None = None
    ) -> Iterator[list[Sample]]:
        """The rest of the epoch in batches of `size` samples, or of at most `max_tokens` (longest x
        samples), or both.

        With a `window`, each so many samples of the plan are sorted by `num_tokens` first, so a
        batch pads little, and the window's batches come in random order. Only the last batch of an
        epoch (or of a window, by tokens) is short.
        """
        limits = [limit for limit in (size, max_tokens, window) if limit is not None]
        if (size is None and max_tokens is None) or min(limits) < 1:
            raise ShardError(
                "batches need a size or max_tokens, and these and the window are at least 1"
            )
        # A window that is no multiple of the size would end with a short batch each time
        if window is not None and size is not None:
            window = -(-window // size) * size  # full batches
        unit = f"batches of size {size}, max_tokens {max_tokens}, window {window}"
        return self._give(unit, self._batches(size, max_tokens, window))

    def _give(self, unit: str, groups: Iterator[list["_Item"]]) -> Iterator[list[Sample]]:
        # The position counts batches of one kind: in other batches it would stand at another sample
        if self._position and unit != self._unit:
            raise ShardError(
                f"the epoch was begun in {self._unit}, and cannot be gone on with in {unit}"
            )
        epoch = self.epoch
        num_given = self._position
        self._unit = unit
        # Paths into a bucket get connections of their own in the process that reads, since none can be used after a
        # fork, and before its threads, each of which would make another
        self._shards = [copy(path) for path in self._shards]
        for path in self._shards:
            getattr(path, "fs", None)
        # Resumed by the plan: what was given before is planned again, and no tar is read for it
        for visit, _ in chain.from_iterable(islice(groups, num_given)):
            visit.left -= 1
        for items in _read_ahead(groups, self._ahead):
            samples = [visit.take(i) for visit, i in items]
            self._position += 1
            yield samples
        self.epoch = epoch + 1
        self._position = 0

    # The plan

    def _batches(
        self, size: int | None, max_tokens: int | None, window: int | None
    ) -> Iterator[list["_Item"]]:
        epoch = self.epoch
        if window is None:
            yield from _cut(self._plan(), size, max_tokens)
            return
        for number, items in enumerate(batched(self._plan(), window)):
            by_length = sorted(items, key=lambda item: item[0].entry.num_tokens[item[1]])
            batches = list(_cut(by_length, size, max_tokens))
            yield from _shuffled(batches, _rng(self.config.seed, "window", epoch, number))

    def _plan(self) -> Iterator["_Item"]:
        """The epoch's samples in the order in which they are given: which of which episode."""
        draw = _draws(self.config.seed, "buffer", self.epoch)
        buffered_visits: list[_Visit] = []
        for visit in self._visits(self.epoch):
            # Fill the buffer with episodes; once it is full, give samples of random ones until one is used up
            buffered_visits.append(visit)
            while len(buffered_visits) >= self.config.buffer:
                k = draw(len(buffered_visits))
                yield buffered_visits[k], buffered_visits[k].picks.pop()
                # One that is used up gives its place to the last
                if not buffered_visits[k].picks:
                    buffered_visits[k] = buffered_visits[-1]
                    buffered_visits.pop()

        # No more episodes come: the samples left are shuffled as one, so that they stay mixed to the end
        remaining_picks: list[tuple[_Visit, int]] = []
        for visit in buffered_visits:
            remaining_picks += [(visit, i) for i in visit.picks]
        yield from _shuffled(remaining_picks, _rng(self.config.seed, "rest", self.epoch))

    def _visits(self, epoch: int) -> Iterator["_Visit"]:
        """The episodes of this consumer's shards, those of `interleave` of them at a time in random order."""
        # All consumers shuffle all shards alike; each takes its own part of them, without those that give nothing
        mine = _shuffled(self._shards, _rng(self.config.seed, "shards", epoch))[self._mine]
        shards = filter(None, (_shard_visits(path, self.config, epoch) for path in mine))
        draw = _draws(self.config.seed, "interleave", epoch)

        # Several shards are mixed, since the episodes of one shard are all of one chunk
        open_shards = list(islice(shards, self.config.interleave))
        if not open_shards and not any(
            _wanted_families(read_index(path), self.config) for path in self._shards
        ):
            raise ShardError(
                f"none of {len(self._shards)} shards has a sample of these families at a rate above 0"
            )
        while open_shards:
            # A shard is drawn by what is left of it, so that all end together
            cumulative_counts = list(accumulate(map(len, open_shards)))
            k = bisect_right(cumulative_counts, draw(cumulative_counts[-1]))
            yield open_shards[k].pop()
            if not open_shards[k]:
                open_shards.pop(k)
                open_shards.extend(islice(shards, 1))


_Content = tuple[list[dict], dict[str, bytes]]  # samples, pictures by name


class _Visit:
    """The one time in an epoch that an episode is read, and which of its samples are still to be drawn."""

    __slots__ = ("content", "entry", "left", "path", "picks", "shown")

    def __init__(self, path: Path, entry: Entry, picks: list[int]) -> None:
        self.path = path
        self.entry = entry
        self.picks = picks
        self.shown = frozenset(picks)
        self.left = len(picks)
        self.content: _Content | Future[_Content] | None = None

    def take(self, i: int) -> Sample:
        if self.content is None:
            self.content = self.read()
        if isinstance(self.content, Future):
            rows, pictures = self.content.result()
        else:
            rows, pictures = self.content
        self.left -= 1
        if not self.left:
            self.content = None
        return replace(expand(rows[i], pictures), entry=pictures)

    def read(self) -> _Content:
        rows, pictures = read_entry(self.path, self.entry)
        try:
            names = chain.from_iterable(rows[i]["pictures"] for i in self.shown)
            return rows, {name: pictures[name] for name in names}
        except (KeyError, TypeError) as e:
            raise ShardError(f"shard {self.path.name} lacks {e} in {self.entry.key}") from e


_Item = tuple[_Visit, int]  # the sample's place in the entry


def _shard_visits(path: Path, config: LoaderConfig, epoch: int) -> list[_Visit]:
    """What an epoch takes of a shard, in random order."""
    index = read_index(path)
    rates = _wanted_families(index, config)
    fixed = _rng(config.seed, "turns", path.name)  # the same in every epoch
    rows: _Rows = {}
    visits = []
    # Which samples are taken is balanced over epochs; the order they come in is random in each
    for entry in index.entries if rates else ():
        picks = _picks(entry, rates, config.per_visit, rows, fixed, epoch)
        if picks:
            visits.append(_Visit(path, entry, picks))
    shuffle_rng = _rng(config.seed, "visits", epoch, path.name)
    for visit in visits:
        visit.picks[:] = _shuffled(visit.picks, shuffle_rng)
    return _shuffled(visits, shuffle_rng)


# By rate, a row of samples of that rate: how many samples stand in it so far, and its offset, drawn once
_Rows = dict[tuple[int, int], tuple[int, int]]


def _picks(
    entry: Entry,
    rates: Mapping[str, Fraction],
    per_visit: int | None,
    shard_rows: _Rows,
    fixed: np.random.Generator,
    epoch: int,
) -> list[int]:
    """Which samples of an episode an epoch takes, each as often as it is taken.

    Samples of one rate stand in a row that no epoch changes: over the whole shard or, with `per_visit`, in an episode.
    With f(m) = floor(rate m + offset), sample number k of a row is taken f(m + 1) - f(m) times, m = epoch - k.

    Invariant: such differences of successive m add up to f(end) - f(begin), which is the rate times their number to
    within one. Neighbours in a row have successive m in one epoch, and one sample has successive m in successive
    epochs: so any stretch of a row, and any number of epochs of one sample, give what the rate says to within one.

    Example: at rate 1/2 and offset 0, f is 0, 0, 1, 1, 2: epoch 0 takes sample 1 of a row (m = -1), 3 and 5; epoch 1
    takes samples 0, 2 and 4.
    """
    # With `per_visit` a rate holds for a part of the episode's samples, and each episode has rows of its own
    count = sum(rates[f] > 0 for f in entry.family)
    # Of the episode's samples, per epoch
    part = Fraction(min(per_visit or count, count), count or 1)
    rows = shard_rows if part == 1 else {}
    rate_of = {f: (rates[f] * part).as_integer_ratio() for f in set(entry.family)}
    picks = []
    for i in _order(fixed, len(entry.family)):
        num, den = rate = rate_of[entry.family[i]]
        # A whole rate takes each sample equally often in every epoch: no row is needed
        if den == 1:
            picks += [i] * num
            continue
        # A row begins at a random offset, or the rows of all shards would take their samples in step
        k, offset = rows.get(rate) or (0, int(fixed.random() * den))  # in parts of `den`
        rows[rate] = (k + 1, offset)
        m = epoch - k
        picks += [i] * (((m + 1) * num + offset) // den - (m * num + offset) // den)
    return picks


def _wanted_families(index: Index, config: LoaderConfig) -> dict[str, Fraction]:
    """The rate of each family of a shard, where some has one above 0."""
    families = dict.fromkeys(chain.from_iterable(entry.family for entry in index.entries))
    rates = {family: config.rate(index.dataset, family) for family in families}
    if any(rates.values()):
        return rates
    return {}


def _read_ahead(groups: Iterator[list[_Item]], ahead: int) -> Iterator[list[_Item]]:
    """The same groups, while threads read the entries of the next `ahead` of them."""
    if not ahead:
        yield from groups
        return
    with ThreadPoolExecutor(THREADS) as pool:
        queue = deque()
        # Reads are started before the group is queued, so `ahead` groups are on their way while one is used
        for items in groups:
            for visit, _ in items:
                visit.content = visit.content or pool.submit(visit.read)
            queue.append(items)
            if len(queue) > ahead:
                yield queue.popleft()
        yield from queue


def _cut(items: Iterable[_Item], size: int | None, max_tokens: int | None) -> Iterator[list[_Item]]:
    """Batches of successive samples: of `size`, or of at most `max_tokens` when all are padded to the longest."""
    batch = []
    longest = 0
    for item in items:
        visit, i = item
        tokens = visit.entry.num_tokens[i]
        if max_tokens is not None and tokens > max_tokens:
            sample = visit.entry.sample_id[i]
            raise ShardError(
                f"sample {sample} of {visit.path.name} has {tokens} tokens, more than {max_tokens}"
            )
        # A padded batch takes as many tokens as its longest sample, times the number of samples
        padded = max(longest, tokens) * (len(batch) + 1)
        if batch and (len(batch) == size or (max_tokens is not None and padded > max_tokens)):
            yield batch
            batch = []
            longest = 0
        batch.append(item)
        longest = max(longest, tokens)
    if batch:
        yield batch


# Chance


def _rng(*words: object) -> np.random.Generator:
    return np.random.default_rng(int.from_bytes(hashlib.sha256(repr(words).encode()).digest()))


def _order(rng: np.random.Generator, count: int) -> list[int]:
    return np.argsort(rng.random(count), kind="stable").tolist()


def _shuffled[T](values: Sequence[T], rng: np.random.Generator) -> list[T]:
    return [values[k] for k in _order(rng, len(values))]


def _draws(*words: object) -> Callable[[int], int]:
    """A function that draws one of 0 ... n - 1; a block of chance at a time, since each call of numpy costs."""
    rng = _rng(*words)
    block: list[float] = []

    def draw(n: int) -> int:
        if not block:
            block.extend(rng.random(1024))
        return int(block.pop() * n)

    return draw
