"""Training data: batches without end from a release's shards or from files of rows, exactly resumable.

A run's batches are numbered, and whatever the number of processes and of their workers, number n is the same batch:
consumer k of c prepares k, k + c, k + 2 c ... They come in turn from a few lanes, each a part of the data that is read
in windows of samples: a window's samples are sorted by length or packed into rows, and its batches are given in random
order. Lengths are planned from texts and picture headers by whoever takes a batch of a window; pictures are decoded by
the one consumer whose batch shows them.

Where a run stands is how many batches all consumers have given, and for each lane where the window of its last batch
began. That says nothing of who gave them, so any number of processes and workers can go on from it.
"""

import io
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from itertools import batched, chain, pairwise
from pathlib import Path
from typing import Any, Protocol

import cv2
import numpy as np
import torch

from training.negatives.config import AS_RECORDED
from training.pictures import Item, Size, decode_picture, shrunk
from training.pixels import normalised, on_device, picture_size
from training.progresslm_data import Rows
from training.recipe import Recipe
from training.transform import Batch, Transform, pack
from warehouse.shards import Index, Sample, ShardError, read_index
from warehouse.shards.loader import MIN_BUFFER, Loader, LoaderConfig

SHIFT = 0.04  # of the picture's side, at most
GAIN, OFFSET = 0.2, 0.1  # of the pixel values, at most
MOST_LANES = 64
LANE_PARTS = 4  # shards, or windows of rows, at least: lanes of fewer would differ in length
NEGATIVES = 1  # of a window's chance: apart from that of its batches' order
LANES_BUFFER = 4 * MIN_BUFFER  # episodes that all lanes hold together, if they are many


def item_of(sample: Sample, max_px: int) -> Item:
    """A stored sample as the transform takes it; the one way for training and evaluation."""
    pictures = tuple(decode_picture(p, max_px) for p in sample.pictures)
    row = sample.row
    return Item(row["question"], pictures, row["answer"], row["progress"])


# Where samples come from


@dataclass(frozen=True)
class Unread:
    """A sample whose pictures are not decoded yet. `number`: of the row, where it is one of a file's; `entry`: the
    pictures of its episode's entry by name, until it is planned."""

    row: Mapping[str, Any]
    sizes: Callable[[], tuple[Size, ...]]
    pictures: Callable[[], tuple[bytes, ...]]
    number: int | None = None
    entry: Mapping[str, bytes] = field(default_factory=dict, repr=False)


def unread(sample: Sample) -> Unread:
    """A sample that lies in memory as it is stored."""
    pictures = sample.pictures
    return Unread(
        sample.row,
        lambda: tuple(picture_size(io.BytesIO(p)) for p in pictures),
        lambda: pictures,
        entry=sample.entry,
    )


# A window's samples as they are drawn: each changed into a negative, or as it was recorded
Change = Callable[[Sequence[Unread], np.random.Generator], list[Unread]]


class SampleSource(Protocol):
    """Windows of samples without end, epoch after epoch. `per_epoch`: samples an epoch, on average."""

    per_epoch: float

    def window(self) -> list[Unread]: ...
    def state_dict(self) -> dict: ...
    def load_state_dict(self, state: Mapping) -> None: ...


class ShardSource:
    """Shards of a release through the loader. Raises ShardError."""

    def __init__(self, loader: Loader, window: int, per_epoch: float) -> None:
        self._loader, self._size, self.per_epoch = loader, window, per_epoch
        self._windows: Iterator[list[Sample]] | None = None

    def window(self) -> list[Unread]:
        while True:
            if self._windows is None:
                self._windows = self._loader.batches(self._size)
            samples = next(self._windows, None)
            if samples:
                return [unread(s) for s in samples]
            self._windows = None  # the next epoch

    def state_dict(self) -> dict:
        return self._loader.state_dict()

    def load_state_dict(self, state: Mapping) -> None:
        self._loader.load_state_dict(state)
        self._windows = None


def taken(index: Index, config: LoaderConfig) -> float:
    """Samples of a shard that an epoch takes, on average."""
    total = 0.0
    for entry in index.entries:
        rates = [float(config.rate(index.dataset, f)) for f in entry.family]
        wanted = sum(rate > 0 for rate in rates)
        part = min(1.0, config.per_visit / wanted) if config.per_visit and wanted else 1.0
        total += part * sum(rates)
    return total


def shard_lanes(shards: Sequence[Path], config: LoaderConfig, window: int) -> list[ShardSource]:
    """The lanes that shards are dealt out to: of about equal length, each with shards of many datasets.

    They follow from the shards alone, never from who reads them. Raises ShardError.
    """
    indexes = {path: read_index(path) for path in shards}
    datasets = {index.dataset for index in indexes.values()}
    if unknown := sorted(config.dataset_rates.keys() - datasets):
        there = ", ".join(sorted(datasets))
        raise ShardError(f"data.dataset_rates: the release has no dataset {', '.join(unknown)}; it has {there}")
    weights = {path: taken(index, config) for path, index in indexes.items()}
    used = [path for path in shards if weights[path]]
    if not used:
        raise ShardError(f"none of {len(shards)} shards has a sample of these families at a rate above 0")
    count = lane_count(len(used))
    # Of each dataset its shards, the largest first, go to the lanes that have least.
    parts: list[list[Path]] = [[] for _ in range(count)]
    filled = [0.0] * count
    for path in sorted(used, key=lambda p: (indexes[p].dataset, -weights[p], p.name)):
        lane = filled.index(min(filled))
        parts[lane].append(path)
        filled[lane] += weights[path]
    config = replace(config, buffer=min(MIN_BUFFER, LANES_BUFFER // count))
    return [ShardSource(Loader(part, config), window, sum(weights[p] for p in part)) for part in parts]


def lane_count(parts: int) -> int:
    """2^k or 3 x 2^k, so that usual numbers of processes and workers divide it: each then reads lanes of its own."""
    most = max(1, min(MOST_LANES, parts // LANE_PARTS))
    return max(n << k for n in (1, 3) for k in range(7) if n << k <= most)


class RowSource:
    """Rows that can be asked for by number, in a new order each epoch. A row's pictures are read when it is due."""

    def __init__(self, rows: Sequence[Sample], window: int, seed: int, lane: int = 0) -> None:
        self._rows, self._size, self._seed, self._lane = rows, window, seed, lane
        self._epoch = self._position = 0
        self.per_epoch = float(len(rows))

    def window(self) -> list[Unread]:
        order = np.random.default_rng([self._seed, self._epoch, self._lane]).permutation(len(self._rows))
        chosen = order[self._position : self._position + self._size]
        self._position += len(chosen)
        if self._position >= len(self._rows):
            self._epoch, self._position = self._epoch + 1, 0
        return [self._unread(int(k)) for k in chosen]

    def _unread(self, k: int) -> Unread:
        rows = self._rows
        if not isinstance(rows, Rows):
            return unread(rows[k])
        return Unread(rows.row(k), lambda: rows.picture_sizes(k), lambda: rows[k].pictures, k)

    def state_dict(self) -> dict:
        return {"epoch": self._epoch, "position": self._position, "rows": len(self._rows)}

    def load_state_dict(self, state: Mapping) -> None:
        if state["rows"] != len(self._rows):
            raise ShardError(f"the run was begun with {state['rows']} rows, now there are {len(self._rows)}")
        self._epoch, self._position = state["epoch"], state["position"]


def row_lanes(rows: Rows, window: int, seed: int) -> list[RowSource]:
    """The lanes that rows are dealt out to, each of some windows at least."""
    count = lane_count(len(rows) // window)
    return [RowSource(rows[k::count], window, seed, k) for k in range(count)]


# Batches


@dataclass(frozen=True)
class Prepared:
    """One batch of one device. drawn: samples taken from the source for it; left_out of these were too long;
    samples and tokens (without padding) are what the batch holds; keys: of these samples; made: how many were made how,
    where the recipe has negatives. Its pictures are bytes: see training.pixels."""

    batch: Batch
    drawn: int
    left_out: int
    samples: int
    tokens: int
    keys: tuple[str, ...] = ()
    made: Mapping[str, int] = field(default_factory=dict)

    def pin_memory(self) -> "Prepared":
        """As torch's loader asks for, so that a GPU can fetch the batch by itself."""
        return replace(self, batch={name: tensor.pin_memory() for name, tensor in self.batch.items()})


def placed(parts: Iterable[Prepared], device: torch.device) -> Iterator[tuple[Prepared, Batch]]:
    """Each part with its batch on the device; on a GPU, the next one is copied while this one is worked on."""
    if device.type != "cuda":
        yield from ((part, on_device(part.batch, device)) for part in parts)
        return
    copying, working = torch.cuda.Stream(device), torch.cuda.current_stream(device)

    def started(part: Prepared) -> tuple[Prepared, Batch, Any]:
        with torch.cuda.stream(copying):
            batch = {name: tensor.to(device, non_blocking=True) for name, tensor in part.batch.items()}
            return part, batch, copying.record_event()

    # Of each pair the second is on its way already when the first is given.
    for upcoming, _ in pairwise(chain(map(started, parts), [None])):
        assert upcoming is not None
        part, batch, ready = upcoming
        working.wait_event(ready)
        for tensor in batch.values():
            tensor.record_stream(working)  # its memory is not given away while it is worked on
        yield part, normalised(batch)


@dataclass(frozen=True)
class _Plan:
    """The samples of a batch, and whether they are packed or padded."""

    samples: list[Unread]
    packed: bool
    drawn: int
    left_out: int


class _Lane:
    """The batches of one source, planned but not prepared. `number`: among a run's lanes."""

    def __init__(
        self, source: SampleSource, transform: Transform, recipe: Recipe, number: int, change: Change | None
    ) -> None:
        self._source, self._transform, self._recipe, self._number = source, transform, recipe, number
        self._change = change
        self._window: dict = source.state_dict()  # where the current window began
        self._began = 0  # batches before that window
        self._plans: list[_Plan] = []
        self._lengths: dict[int, int] = {}  # by number of the row: rows come again each epoch

    def state_dict(self) -> dict:
        """Where the window of the last batch began; JSON."""
        return {"window": self._window, "began": self._began}

    def load_state_dict(self, state: Mapping) -> None:
        self._window, self._began, self._plans = dict(state["window"]), int(state["began"]), []
        self._source.load_state_dict(self._window)

    def plan(self, k: int) -> _Plan:
        """Batch number k of this lane; only ever later ones can be asked for."""
        while k >= self._began + len(self._plans):
            self._window, self._began = self._source.state_dict(), self._began + len(self._plans)
            self._plans = self._next_plans()
        return self._plans[k - self._began]

    def _next_plans(self) -> list[_Plan]:
        """The batches of the source's next window that has any."""
        drawn = left_out = 0
        groups: list[list[list[int]]] = []
        samples: list[Unread] = []
        # Drawn by where the window began, so that a resumed run draws the same
        chance = np.random.default_rng([self._recipe.train.seed, self._began, self._number, NEGATIVES])
        while not groups:
            window = self._source.window()
            samples = [s for s in window if self._has_form(s)]
            if self._change is not None:
                samples = self._change(samples, chance)
            # An entry holds many pictures that these samples do not show: it is let go
            samples = [replace(s, entry={}) for s in samples]
            lengths = [self._length(s) for s in samples]
            # Samples that are too long are left out, never cut: an answer without its end would be learnt.
            fitting = [k for k, n in enumerate(lengths) if n <= self._recipe.data.sequence_length]
            groups = self._grouped(fitting, lengths)
            drawn += len(window)
            left_out += len(samples) - len(fitting)
            # Two epochs in which nothing fitted: there will be no batch, however long one waits.
            if not groups and drawn > 2 * self._source.per_epoch:
                raise ShardError(self._nothing_fits(left_out, drawn))

        seed = [self._recipe.train.seed, self._began, self._number]
        order = np.random.default_rng(seed).permutation(len(groups))
        plans = [self._planned(groups[at], samples) for at in order]
        # Samples that were drawn in vain are counted with the first batch.
        lost = drawn - sum(p.drawn for p in plans)
        plans[0] = replace(plans[0], drawn=plans[0].drawn + lost, left_out=left_out)
        return plans

    def _has_form(self, sample: Unread) -> bool:
        """Is the sample of the form that the recipe trains on? A sample that states no form always is."""
        think = self._recipe.data.think
        return think is None or sample.row.get("form") in (None, _form(think))

    def _length(self, sample: Unread) -> int:
        """Tokens of a sample, by its texts and the headers of its pictures."""
        if sample.number is not None and (length := self._lengths.get(sample.number)) is not None:
            return length
        with naming(sample):
            sizes = [shrunk(size, self._recipe.model.max_px) for size in sample.sizes()]
            length = self._transform.length(sample.row["question"], sample.row["answer"], sizes)
        if sample.number is not None:
            self._lengths[sample.number] = length
        return length

    def _grouped(self, fitting: list[int], lengths: Sequence[int]) -> list[list[list[int]]]:
        """Batches of rows of sample numbers; without packing, a row is one sample."""
        data, size = self._recipe.data, self._recipe.train.batch
        if data.packing:
            rows = pack(fitting, lengths, data.sequence_length)
        else:
            by_length = sorted(fitting, key=lambda k: lengths[k])
            rows = [[k] for k in (by_length if data.window else fitting)]
        return [list(group) for group in batched(rows, size)]

    def _planned(self, group: list[list[int]], samples: Sequence[Unread]) -> _Plan:
        chosen = [samples[k] for row in group for k in row]
        return _Plan(chosen, self._recipe.data.packing, len(chosen), 0)

    def _nothing_fits(self, left_out: int, drawn: int) -> str:
        data = self._recipe.data
        others = "" if data.think is None else f", the others are not {_form(data.think)}"
        return (
            f"no sample can be trained on: {left_out} of {drawn} have more than {data.sequence_length} "
            f"tokens (data.sequence_length, model.max_pixels, model.max_vision_tokens){others}"
        )


class BatchStream:
    """Batches of one consumer, without end: `first`, and then each `every`-th, of the run's.

    Batch n of the run is number n // lanes of lane n % lanes.
    """

    def __init__(
        self,
        sources: Sequence[SampleSource],
        transform: Transform,
        recipe: Recipe,
        first: int = 0,
        every: int = 1,
        change: Change | None = None,
    ) -> None:
        self._lanes = [_Lane(source, transform, recipe, k, change) for k, source in enumerate(sources)]
        self.lanes = len(self._lanes)
        self._transform, self._recipe = transform, recipe
        self._first, self._every = first, every
        self._cache = _Cache(recipe.data.cache_mb << 20)
        self._given = 0  # of all consumers, each of which gives a batch in turn
        self.per_epoch = sum(source.per_epoch for source in sources)
        self.last: dict[str, dict] = {}  # the state of the lane of the last batch, by its number
        self._states: dict[str, dict] = {}

    def state_dict(self) -> dict:
        """Where the run stands once all consumers have given as many batches as this one; JSON. See `together`."""
        return {"given": self._given, "lanes": dict(self._states), "count": self.lanes}

    def load_state_dict(self, state: Mapping) -> None:
        """Go on from a state of all consumers together, however many they were. Raises ShardError."""
        if state["count"] != self.lanes:
            raise ShardError(f"the run was begun with {state['count']} lanes of data, now there are {self.lanes}")
        self._given, self._states = int(state["given"]), dict(state["lanes"])
        for name, lane_state in self._states.items():
            self._lanes[int(name)].load_state_dict(lane_state)

    def __iter__(self) -> Iterator[Prepared]:
        return self

    def __next__(self) -> Prepared:
        number = next_number(self._given, self._first, self._every)
        lane = self._lanes[number % self.lanes]
        plan = lane.plan(number // self.lanes)
        self._given += self._every
        self.last = {str(number % self.lanes): lane.state_dict()}
        self._states |= self.last
        return self._prepare(plan, number)

    def _prepare(self, plan: _Plan, number: int) -> Prepared:
        items = [self._item(sample) for sample in plan.samples]
        if self._recipe.data.augment:
            # Drawn by the batch's number in the run: no two consumers draw the same.
            rng = np.random.default_rng([self._recipe.train.seed, number])
            items = [augment(i, rng) for i in items]
        batch = self._transform.as_bytes(items, plan.packed)
        tokens = int(batch["item_mask" if plan.packed else "attention_mask"].sum())
        keys = tuple(map(_key, plan.samples))
        made = Counter(s.row["negative"] for s in plan.samples if "negative" in s.row)
        return Prepared(batch, plan.drawn, plan.left_out, len(items), tokens, keys, made)

    def _item(self, sample: Unread) -> Item:
        # What was changed is hardly ever made again
        key = sample.row.get("sample_id") if _is_recorded(sample) else None
        item = self._cache.get(key)
        if item is None:
            with naming(sample):
                item = item_of(Sample(dict(sample.row), sample.pictures()), self._recipe.model.max_px)
            self._cache.put(key, item)
        return item


def _is_recorded(sample: Unread) -> bool:
    return sample.row.get("negative", AS_RECORDED) == AS_RECORDED


def _key(sample: Unread) -> str:
    """What a batch's samples are called, for people: the sample, and how it was changed."""
    key = str(sample.row.get("sample_id", ""))
    return key if _is_recorded(sample) else f"{key} {sample.row['negative']}"


def next_number(given: int, first: int, every: int) -> int:
    """The next batch of a consumer, once so many were given by all: the first from there on that is one of its own."""
    return given + (first - given) % every


def together(states: Sequence[Mapping]) -> dict:
    """One state of the states of all consumers, which have given as many batches each. Raises ShardError.

    A consumer knows the lanes that it took batches of: a lane stands where the furthest of them says.
    """
    given = {state["given"] for state in states}
    if len(given) != 1 or len({state["count"] for state in states}) != 1:
        raise ShardError(f"the states are not of one moment of a run: {sorted(given)} batches were given")
    lanes: dict[str, dict] = {}
    for state in states:
        for name, lane in state["lanes"].items():
            if name not in lanes or lane["began"] > lanes[name]["began"]:
                lanes[name] = lane
    return {**states[0], "lanes": lanes}


@contextmanager
def naming(sample: Unread) -> Iterator[None]:
    """A picture or question that cannot be used is told with its sample. Raises ShardError."""
    try:
        yield
    except ValueError as e:
        raise ShardError(f"sample {sample.row.get('sample_id', '')}: {e}") from e


def _form(think: bool) -> str:
    return "think" if think else "no_think"


class _Cache:
    """Decoded items by sample, up to so many bytes; what came first stays."""

    def __init__(self, limit_bytes: int) -> None:
        self._left, self._items = limit_bytes, dict[str, Item]()

    def get(self, key: str | None) -> Item | None:
        return self._items.get(key) if key else None

    def put(self, key: str | None, item: Item) -> None:
        size = sum(p.nbytes for p in item.pictures)
        if key and size <= self._left:
            self._left -= size
            self._items[key] = item


def augment(item: Item, rng: np.random.Generator) -> Item:
    """The same shift, gain and colour cast on all pictures of an item: its motion stays what it was."""
    dx, dy = rng.uniform(-SHIFT, SHIFT, 2)
    # One gain for brightness, and a small one more for each colour.
    gain = 1 + rng.uniform(-GAIN, GAIN) + rng.uniform(-GAIN, GAIN, 3) / 4
    offset = 255 * rng.uniform(-OFFSET, OFFSET)
    pictures = []
    for picture in item.pictures:
        h, w = picture.shape[:2]
        move = np.array([[1, 0, dx * w], [0, 1, dy * h]], np.float32)
        # The last pixels are repeated at the rim: a black one would show how far the picture was moved.
        moved = cv2.warpAffine(picture, move, (w, h), borderMode=cv2.BORDER_REPLICATE)
        pictures.append(np.clip(moved * gain + offset, 0, 255).astype(np.uint8))
    return replace(item, pictures=tuple(pictures))
