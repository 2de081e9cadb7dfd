"""Training data: batches without end from a release's shards or from files of rows, exactly resumable.

Samples come in windows; a window's samples are sorted by length or packed into rows, and its batches are given in
random order. Where a stream stands is where its window began and how many batches of it were given, so a resumed stream
gives the very batches that an uninterrupted one would have.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import batched
from pathlib import Path
from typing import Protocol

import cv2
import numpy as np

from training.recipe import Recipe
from training.transform import Batch, Item, Transform, decode_picture, pack
from warehouse.shards import Sample, ShardError, read_index
from warehouse.shards.loader import Loader, LoaderConfig

SHIFT = 0.04  # of the picture's side, at most
GAIN, OFFSET = 0.2, 0.1  # of the pixel values, at most


def item_of(sample: Sample, max_px: int) -> Item:
    """A stored sample as the transform takes it; the one way for training and evaluation."""
    pictures = tuple(decode_picture(p, max_px) for p in sample.pictures)
    return Item(sample.row["question"], pictures, sample.row["answer"], sample.row["progress"])


# Where samples come from


class SampleSource(Protocol):
    """Windows of samples without end, epoch after epoch. `per_epoch`: samples of all consumers together, on average."""

    per_epoch: float

    def window(self) -> list[Sample]: ...
    def state_dict(self) -> dict: ...
    def load_state_dict(self, state: Mapping) -> None: ...


class ShardSource:
    """A release's shards through the loader; this consumer's part. Raises ShardError."""

    def __init__(self, loader: Loader, shards: Sequence[Path], window: int) -> None:
        self._loader, self._size = loader, window
        self._windows: Iterator[list[Sample]] | None = None
        self.per_epoch = expected(shards, loader.config)

    def window(self) -> list[Sample]:
        while True:
            if self._windows is None:
                self._windows = self._loader.batches(self._size)
            found = next(self._windows, None)
            if found:
                return found
            self._windows = None  # the next epoch

    def state_dict(self) -> dict:
        return self._loader.state_dict()

    def load_state_dict(self, state: Mapping) -> None:
        self._loader.load_state_dict(state)
        self._windows = None


def expected(shards: Sequence[Path], config: LoaderConfig) -> float:
    """Samples an epoch, on average. Raises ShardError."""
    total = 0.0
    for path in shards:
        index = read_index(path)
        total += float(sum(config.rate(index.dataset, f) for e in index.entries for f in e.family))
    if not total:
        raise ShardError(f"none of {len(shards)} shards has a sample of these families at a rate above 0")
    return total


class RowSource:
    """Rows that can be asked for by number, in a new order each epoch. A row is read when its window is due."""

    def __init__(self, rows: Sequence[Sample], window: int, seed: int) -> None:
        self._rows, self._size, self._seed = rows, window, seed
        self._epoch = self._position = 0
        self.per_epoch = float(len(rows))

    def window(self) -> list[Sample]:
        order = np.random.default_rng([self._seed, self._epoch]).permutation(len(self._rows))
        chosen = order[self._position : self._position + self._size]
        self._position += len(chosen)
        if self._position >= len(self._rows):
            self._epoch, self._position = self._epoch + 1, 0
        return [self._rows[int(k)] for k in chosen]

    def state_dict(self) -> dict:
        return {"epoch": self._epoch, "position": self._position, "rows": len(self._rows)}

    def load_state_dict(self, state: Mapping) -> None:
        if state["rows"] != len(self._rows):
            raise ShardError(f"the run was begun with {state['rows']} rows, now there are {len(self._rows)}")
        self._epoch, self._position = state["epoch"], state["position"]


# Batches


@dataclass(frozen=True)
class Prepared:
    """One batch of one device. drawn: samples taken from the source for it; left_out of these were too long;
    samples and tokens (without padding) are what the batch holds."""

    batch: Batch
    drawn: int
    left_out: int
    samples: int
    tokens: int


@dataclass(frozen=True)
class _Plan:
    """The items of a batch, and how many stand in each packed row; None: padded."""

    items: list[Item]
    rows: list[int] | None
    drawn: int
    left_out: int


class BatchStream:
    """Batches of one consumer, without end. `every`, `first`: it gives batch `first`, and then each `every`-th, of
    those it makes, where several consumers share a source."""

    def __init__(
        self, source: SampleSource, transform: Transform, recipe: Recipe, first: int = 0, every: int = 1
    ) -> None:
        self._source, self._transform, self._recipe = source, transform, recipe
        self._first, self._every = first, every
        self._cache = _Cache(recipe.data.cache_mb << 20)
        self._window: dict = source.state_dict()  # where the current window began
        self._plans: list[_Plan] = []
        self._taken = 0  # of the current window
        self._given = 0  # in all
        self._idle = self._left_out = 0  # drawn since the last batch, and too long of these
        self.per_epoch = source.per_epoch

    def state_dict(self) -> dict:
        """Where it stands after the last batch; JSON."""
        return {"window": self._window, "taken": self._taken, "given": self._given}

    def load_state_dict(self, state: Mapping) -> None:
        self._window, self._taken, self._given = dict(state["window"]), int(state["taken"]), int(state["given"])
        self._source.load_state_dict(self._window)
        self._plans = self._plan() if self._taken else []

    def __iter__(self) -> Iterator[Prepared]:
        return self

    def __next__(self) -> Prepared:
        while True:
            while self._taken >= len(self._plans):
                self._window, self._taken = self._source.state_dict(), 0
                self._plans = self._plan()
            plan, number = self._plans[self._taken], self._given
            self._taken, self._given = self._taken + 1, number + 1
            if number % self._every == self._first:
                return self._prepare(plan, number)

    def _prepare(self, plan: _Plan, number: int) -> Prepared:
        items = plan.items
        if self._recipe.data.augment:
            rng = np.random.default_rng([self._recipe.train.seed, number])
            items = [augment(i, rng) for i in items]
        batch = self._transform(items, plan.rows)
        tokens = int(batch["attention_mask" if plan.rows is None else "item_mask"].sum())
        return Prepared(batch, plan.drawn, plan.left_out, len(items), tokens)

    def _plan(self) -> list[_Plan]:
        """The batches of the source's next window."""
        samples = self._source.window()
        items = [self._item(s) for s in samples if self._has_form(s)]
        lengths = [self._transform.length(i) for i in items]
        # Samples that are too long are left out, never cut: an answer without its end would be learnt.
        fitting = [k for k, n in enumerate(lengths) if n <= self._recipe.data.sequence_length]
        groups = self._grouped(fitting, lengths)
        self._idle += len(samples)
        self._left_out += len(items) - len(fitting)
        # Two epochs in which nothing fitted: there will be no batch, however long one waits.
        if not groups and self._idle > 2 * self._source.per_epoch:
            raise ShardError(self._nothing_fits())

        # The order depends on how many batches were given before the window, also where it is planned again midway.
        began = self._given - self._taken
        order = np.random.default_rng([self._recipe.train.seed, began]).permutation(len(groups))
        plans = [self._planned(groups[at], items) for at in order]

        # Samples that were drawn in vain are counted with the first batch.
        if plans:
            lost = self._idle - sum(p.drawn for p in plans)
            plans[0] = replace(plans[0], drawn=plans[0].drawn + lost, left_out=self._left_out)
            self._idle = self._left_out = 0
        return plans

    def _has_form(self, sample: Sample) -> bool:
        """Is the sample of the form that the recipe trains on? A sample that states no form always is."""
        think = self._recipe.data.think
        return think is None or sample.row.get("form") in (None, _form(think))

    def _grouped(self, fitting: list[int], lengths: Sequence[int]) -> list[list[list[int]]]:
        """Batches of rows of item numbers; without packing, a row is one item."""
        data, size = self._recipe.data, self._recipe.train.batch
        if data.packing:
            rows = pack(fitting, lengths, data.sequence_length)
        else:
            by_length = sorted(fitting, key=lambda k: lengths[k])
            rows = [[k] for k in (by_length if data.window else fitting)]
        return [list(group) for group in batched(rows, size)]

    def _planned(self, group: list[list[int]], items: Sequence[Item]) -> _Plan:
        chosen = [items[k] for row in group for k in row]
        rows = [len(row) for row in group] if self._recipe.data.packing else None
        return _Plan(chosen, rows, len(chosen), 0)

    def _nothing_fits(self) -> str:
        data = self._recipe.data
        others = "" if data.think is None else f", the others are not {_form(data.think)}"
        return (
            f"no sample can be trained on: {self._left_out} of {self._idle} have more than {data.sequence_length} "
            f"tokens (data.sequence_length, model.max_pixels, model.max_vision_tokens){others}"
        )

    def _item(self, sample: Sample) -> Item:
        key = sample.row.get("sample_id")
        found = self._cache.get(key)
        if found is None:
            found = item_of(sample, self._recipe.model.max_px)
            self._cache.put(key, found)
        return found


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
    return Item(item.question, tuple(pictures), item.answer, item.progress)
