"""Samples out of shards, shuffled, mixed and divided, one pass after another, and exactly resumable.

What an epoch gives, and in what order, is a plan made from the indexes beside the tars: shards in random order, divided
among the consumers, some interleaved; of these, episodes into a buffer, and the next sample always from a random one of
the buffer. A tar is only read for what the plan comes to: an entry at once, when its first sample is due, and it is let
go after its last. So resuming costs planning, not reading. All chance comes from `Generator.random` seeded by the
sha256 of words: the same seed and shards, the same order, on any machine.
"""

import hashlib
import json
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from copy import copy
from dataclasses import asdict, dataclass, field, replace
from fractions import Fraction
from itertools import batched, islice, pairwise
from math import isfinite
from pathlib import Path

import numpy as np

from warehouse.shards.shard import Entry, Sample, ShardError, expand, read_entry, read_index

MIN_BUFFER = 64  # episodes
THREADS = 4  # that read ahead
PLAN = 1  # counted up when the same seed gives another order
FINEST = 10**9  # a rate is the nearest fraction with no greater denominator: 1 / 3 is a third


@dataclass(frozen=True)
class LoaderConfig:
    """What an epoch is made of, and how well it is mixed.

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
    buffer: int = MIN_BUFFER  # episodes held: two samples of one stand side by side once in so many times
    interleave: int = 8  # shards of a consumer open at once

    def __post_init__(self) -> None:
        for name in ("per_visit", "buffer", "interleave"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ShardError(f"{name} is {value}, and must be at least 1")
        for kind in ("dataset_rates", "family_rates"):
            for name, rate in getattr(self, kind).items():
                if not (isfinite(rate) and rate >= 0):
                    raise ShardError(f"{kind}: that of {name} is {rate}, and must be a number from 0 on")

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
        self.config, self.epoch, self._ahead = config or LoaderConfig(), epoch, ahead
        self._shards = sorted(shards, key=lambda p: p.name)
        names = [p.name for p in self._shards]
        if twice := [a for a, b in pairwise(names) if a == b]:
            raise ShardError(f"shard {twice[0]} is given twice")
        if not (0 <= node < num_nodes and 0 <= worker < num_workers):
            raise ShardError(f"there is no worker {worker} of {num_workers} on node {node} of {num_nodes}")
        consumers = num_nodes * num_workers
        if consumers > len(names):
            raise ShardError(
                f"{num_nodes} nodes x {num_workers} workers are {consumers} consumers, too many for "
                f"{len(names)} shards: at least one shard each; take fewer workers or smaller shards"
            )
        self._mine = slice(worker * num_nodes + node, None, consumers)
        self._position = 0  # what has been given of the epoch, counted in `_unit`
        self._unit: str = "samples"
        self._of = {
            "plan": PLAN,
            "shards": f"{len(names)}, sha256 {hashlib.sha256(chr(10).join(names).encode()).hexdigest()[:16]}",
            **{"node": node, "num_nodes": num_nodes, "worker": worker, "num_workers": num_workers},
            **json.loads(json.dumps(asdict(self.config))),
        }

    # Where it stands

    def state_dict(self) -> dict:
        """Where this consumer stands after what was last given; JSON."""
        return {"epoch": self.epoch, "position": self._position, "unit": self._unit, "of": self._of}

    def load_state_dict(self, state: Mapping) -> None:
        """Go on after what had been given when `state` was taken. Raises ShardError where it is not this loader's."""
        try:
            epoch, position, unit, of = int(state["epoch"]), int(state["position"]), str(state["unit"]), state["of"]
            differ = [f"{k} was {of.get(k)}, now {v}" for k, v in self._of.items() if of.get(k) != v]
        except (KeyError, TypeError, ValueError, AttributeError) as e:
            raise ShardError(f"this is not the state of a loader: {e!r}") from e
        if differ:
            raise ShardError(f"the state is not of these shards and settings: {'; '.join(differ)}")
        self.epoch, self._position, self._unit = epoch, position, unit

    # What it gives

    def __iter__(self) -> Iterator[Sample]:
        for (sample,) in self._give("samples", ([item] for item in self._plan())):
            yield sample

    def batches(
        self, size: int | None = None, *, max_tokens: int | None = None, window: int | None = None
    ) -> Iterator[list[Sample]]:
        """The rest of the epoch in batches of `size` samples, or of at most `max_tokens` (longest x samples), or both.

        With a `window`, each so many samples of the plan are sorted by `num_tokens` first, so a batch pads little, and
        the window's batches come in random order. Only the last batch of an epoch (or of a window, by tokens) is short.
        """
        if (size is None and max_tokens is None) or any(n is not None and n < 1 for n in (size, max_tokens, window)):
            raise ShardError("batches need a size or max_tokens, and these and the window are at least 1")
        if window is not None and size is not None:
            window = -(-window // size) * size  # full batches
        unit = f"batches of size {size}, max_tokens {max_tokens}, window {window}"
        return self._give(unit, self._batches(size, max_tokens, window))

    def _give(self, unit: str, groups: Iterable[list["_Item"]]) -> Iterator[list[Sample]]:
        if self._position and unit != self._unit:
            raise ShardError(f"the epoch was begun in {self._unit}, and cannot be gone on with in {unit}")
        epoch, given, self._unit = self.epoch, self._position, unit
        groups = iter(groups)
        self._shards = [_connected(path) for path in self._shards]
        for items in islice(groups, given):
            for visit, _ in items:
                visit.left -= 1
        for items in _read_ahead(groups, self._ahead):
            samples = [visit.take(i) for visit, i in items]
            self._position += 1
            yield samples
        self.epoch, self._position = epoch + 1, 0

    # The plan

    def _batches(self, size: int | None, max_tokens: int | None, window: int | None) -> Iterator[list["_Item"]]:
        epoch = self.epoch
        if window is None:
            yield from _cut(self._plan(), size, max_tokens)
            return
        for number, items in enumerate(batched(self._plan(), window)):
            found = list(_cut(sorted(items, key=lambda item: item[0].entry.num_tokens[item[1]]), size, max_tokens))
            for k in _order(_rng(self.config.seed, "window", epoch, number), len(found)):
                yield found[k]

    def _plan(self) -> Iterator["_Item"]:
        """The epoch's samples in the order in which they are given: which of which episode."""
        draw = _draws(self.config.seed, "buffer", self.epoch)
        held: list[_Visit] = []
        for visit in self._visits(self.epoch):
            held.append(visit)
            while len(held) >= self.config.buffer:
                k = draw(len(held))
                yield held[k], held[k].picks.pop()
                if not held[k].picks:
                    held[k] = held[-1]
                    held.pop()
        rest = [(visit, i) for visit in held for i in visit.picks]
        for k in _order(_rng(self.config.seed, "rest", self.epoch), len(rest)):  # evenly to the end
            yield rest[k]

    def _visits(self, epoch: int) -> Iterator["_Visit"]:
        """The episodes of this consumer's shards, those of `interleave` of them at a time in random order."""
        shuffled = _order(_rng(self.config.seed, "shards", epoch), len(self._shards))
        waiting = iter([self._shards[k] for k in shuffled[self._mine]])
        draw = _draws(self.config.seed, "interleave", epoch)
        open_: list[list[_Visit]] = []
        empty = True
        while True:
            while len(open_) < self.config.interleave and (path := next(waiting, None)):
                if visits := _visits(path, self.config, epoch):
                    open_.append(visits)
                    empty = False
            if not open_:
                break
            k, at = 0, draw(sum(map(len, open_)))  # by what is left of each, so that all end together
            while at >= len(open_[k]):
                at -= len(open_[k])
                k += 1
            yield open_[k].pop()
            if not open_[k]:
                open_.pop(k)
        if empty and not any(_is_wanted(path, self.config) for path in self._shards):
            raise ShardError(f"none of {len(self._shards)} shards has a sample of these families at a rate above 0")


_Content = tuple[list[dict], dict[str, bytes]]  # samples, pictures by name


class _Visit:
    """The one time in an epoch that an episode is read, and which of its samples are still to be drawn."""

    __slots__ = ("content", "entry", "left", "path", "picks", "wanted")

    def __init__(self, path: Path, entry: Entry, picks: list[int]) -> None:
        self.path, self.entry, self.picks = path, entry, picks
        self.wanted, self.left = frozenset(picks), len(picks)
        self.content: _Content | Future[_Content] | None = None

    def take(self, i: int) -> Sample:
        if self.content is None:
            self.content = self.read()
        rows, pictures = self.content.result() if isinstance(self.content, Future) else self.content
        self.left -= 1
        if not self.left:
            self.content = None
        return expand(rows[i], pictures)

    def read(self) -> _Content:
        rows, pictures = read_entry(self.path, self.entry)
        try:
            return rows, {name: pictures[name] for i in self.wanted for name in rows[i]["pictures"]}
        except (KeyError, TypeError) as e:
            raise ShardError(f"shard {self.path.name} lacks {e} in {self.entry.key}") from e


_Item = tuple[_Visit, int]  # the sample's place in the entry


def _visits(path: Path, config: LoaderConfig, epoch: int) -> list[_Visit]:
    """What an epoch takes of a shard, in random order.

    Samples of one rate stand in a row that no epoch changes, over the whole shard or, with `per_visit`, in an episode;
    the k-th is taken f(epoch - k + 1) - f(epoch - k) times, f(m) = floor(rate m + chance). So any stretch of a row,
    and any number of epochs of one sample, give what the rate says to within one.
    """
    index = read_index(path)
    fixed = _rng(config.seed, "turns", path.name)
    rates = {f: config.rate(index.dataset, f) for e in index.entries for f in set(e.family)}
    rows: dict[tuple[int, int], tuple[int, int]] = {}  # rate: (how far the row is, chance)
    found = []
    for entry in index.entries:
        count = sum(rates[f] > 0 for f in entry.family)
        part = Fraction(min(config.per_visit or count, count), count or 1)
        own = rows if part == 1 else {}
        often = {f: (rates[f] * part).as_integer_ratio() for f in set(entry.family)}
        picks = []
        for i in _order(fixed, len(entry.family)):
            num, den = often[entry.family[i]]
            if den == 1:
                picks += [i] * num
                continue
            k, chance = own.get((num, den)) or (0, int(fixed.random() * den))
            own[num, den] = (k + 1, chance)
            picks += [i] * (((epoch - k + 1) * num + chance) // den - ((epoch - k) * num + chance) // den)
        if picks:
            found.append(_Visit(path, entry, picks))
    moving = _rng(config.seed, "visits", epoch, path.name)
    for visit in found:
        visit.picks[:] = [visit.picks[k] for k in _order(moving, len(visit.picks))]
    return [found[k] for k in _order(moving, len(found))]


def _is_wanted(path: Path, config: LoaderConfig) -> bool:
    index = read_index(path)
    return any(config.rate(index.dataset, f) > 0 for e in index.entries for f in set(e.family))


def _connected(path: Path) -> Path:
    """The same path with a connection of its own, if it leads into a bucket: made in the process that reads, since none
    can be used after a fork, and before its threads, each of which would make another."""
    path = copy(path)
    getattr(path, "fs", None)
    return path


def _read_ahead(groups: Iterator[list[_Item]], ahead: int) -> Iterator[list[_Item]]:
    """The same groups, while threads read the entries of the next `ahead` of them."""
    if not ahead:
        yield from groups
        return
    with ThreadPoolExecutor(THREADS) as pool:
        queue = deque()
        for items in groups:
            for visit, _ in items:
                visit.content = visit.content or pool.submit(visit.read)
            queue.append(items)
            if len(queue) > ahead:
                yield queue.popleft()
        yield from queue


def _cut(items: Iterable[_Item], size: int | None, max_tokens: int | None) -> Iterator[list[_Item]]:
    batch, longest = [], 0
    for visit, i in items:
        tokens = visit.entry.num_tokens[i]
        if max_tokens is not None and tokens > max_tokens:
            sample = visit.entry.sample_id[i]
            raise ShardError(f"sample {sample} of {visit.path.name} has {tokens} tokens, more than {max_tokens}")
        most = max(longest, tokens) * (len(batch) + 1)
        if batch and (len(batch) == size or (max_tokens is not None and most > max_tokens)):
            yield batch
            batch, longest = [], 0
        batch.append((visit, i))
        longest = max(longest, tokens)
    if batch:
        yield batch


# Chance


def _rng(*words: object) -> np.random.Generator:
    return np.random.default_rng(int.from_bytes(hashlib.sha256(repr(words).encode()).digest()))


def _order(rng: np.random.Generator, count: int) -> list[int]:
    return np.argsort(rng.random(count), kind="stable").tolist()


def _draws(*words: object) -> Callable[[int], int]:
    """A function that draws one of 0 ... n - 1; a block of chance at a time, since each call of numpy costs."""
    rng = _rng(*words)
    block: list[float] = []

    def draw(n: int) -> int:
        if not block:
            block.extend(rng.random(1024))
        return int(block.pop() * n)

    return draw


# Shares


def with_shares(
    shards: Sequence[Path],
    config: LoaderConfig,
    *,
    datasets: Mapping[str, float] | None = None,
    families: Mapping[str, float] | None = None,
    tolerance: float = 1e-6,
) -> LoaderConfig:
    """`config` with rates that give datasets, families or both these shares of an epoch, as many samples in all as at
    rate 1. Shares are taken relative to their sum; 0 leaves out. Reads every index. Raises ShardError, also where
    no rates give both.
    """
    config = replace(config, dataset_rates={}, family_rates={})
    wanted = {f for f, share in families.items() if share} if families is not None else None
    counts: dict[tuple[str, str], float] = {}
    for path in shards:
        index = read_index(path)
        for e in index.entries:
            some = [f for f in e.family if config.rate(index.dataset, f)]
            if families is not None and (unknown := set(some) - families.keys()):
                raise ShardError(f"no share is given to the family {min(unknown)}; 0 leaves it out")
            some = [f for f in some if wanted is None or f in wanted]
            part = min(1.0, (config.per_visit or len(some)) / max(len(some), 1))
            for f in some:
                counts[index.dataset, f] = counts.get((index.dataset, f), 0) + part
    names = [sorted({key[axis] for key in counts}) for axis in (0, 1)]
    table = np.array([[counts.get((d, f), 0.0) for f in names[1]] for d in names[0]]).reshape(len(names[0]), -1)
    total = table.sum()
    targets = [_targets(names[0], datasets, "dataset"), _targets(names[1], families, "family")]
    rates = [np.ones(len(n)) for n in names]
    for _ in range(10_000):  # proportional fitting: each axis in turn, until both are met
        off = 0.0
        for axis, target in enumerate(targets):
            if target is not None:
                now = (table * rates[0][:, None] * rates[1]).sum(axis=1 - axis)
                off = max(off, float(abs(now / total - target).max()))
                rates[axis] = rates[axis] * np.divide(target * total, now, out=np.zeros_like(now), where=now > 0)
        if off < tolerance or max(r.max() for r in rates) > FINEST:
            break
    if off >= tolerance:
        raise ShardError("no rates give these shares to datasets and families at once: some datasets lack a family")
    found = [dict(zip(n, r.tolist(), strict=True)) for n, r in zip(names, rates, strict=True)]
    left_out = {f: 0.0 for f, share in (families or {}).items() if not share}
    return replace(
        config,
        dataset_rates=found[0] if datasets is not None else {},
        family_rates=found[1] | left_out if families is not None else {},
    )


def _targets(names: list[str], shares: Mapping[str, float] | None, kind: str) -> np.ndarray | None:
    if shares is None:
        return None
    if missing := set(names) - shares.keys():
        raise ShardError(f"no share is given to the {kind} {min(missing)}; 0 leaves it out")
    if absent := {n for n, share in shares.items() if share} - set(names):
        raise ShardError(f"a share is given to the {kind} {min(absent)}, of which there is no sample")
    given = np.array([shares[n] for n in names], float)
    if not (np.isfinite(given).all() and (given >= 0).all() and given.sum() > 0):
        raise ShardError(f"shares of a {kind} are numbers from 0 on, not all 0")
    return given / given.sum()
