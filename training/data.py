"""Training samples: from a release's shards or files of rows, window by window, without decoding a picture."""

import io
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from itertools import product
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from annotate.samples.wording import Form
from training.pictures import Item, Size, decode_picture, shrunk
from training.pixels import picture_size
from training.progresslm_data import Rows, read_rows
from training.recipe import Recipe
from training.transform import Transform
from warehouse.shards.loader import MIN_BUFFER, Loader, LoaderConfig
from warehouse.shards.shard import Index, Sample, ShardError, read_index

SHIFT = 0.04  # of the picture's side, at most
GAIN, OFFSET = 0.2, 0.1  # of the pixel values, at most
MOST_LANES = 64
LANE_PARTS = 4  # shards, or windows of rows, at least: lanes of fewer would differ in length
LANES_BUFFER = 4 * MIN_BUFFER  # episodes that all lanes hold together, if they are many


def item_of(sample: Sample, max_px: int) -> Item:
    """A stored sample as the transform takes it; the one way for training and evaluation."""
    pictures = tuple(decode_picture(p, max_px) for p in sample.pictures)
    row = sample.row
    return Item(row["question"], pictures, row["answer"], row["progress"])


def form_name(think: bool) -> Form:
    if think:
        return "think"
    return "no_think"


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
        warped = cv2.warpAffine(picture, move, (w, h), borderMode=cv2.BORDER_REPLICATE)
        pictures.append(np.clip(warped * gain + offset, 0, 255).astype(np.uint8))
    return replace(item, pictures=tuple(pictures))


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


def row_at(rows: Sequence[Sample], k: int) -> Unread:
    """Sample number k; of rows of files, no picture is read."""
    if not isinstance(rows, Rows):
        return unread(rows[k])
    return Unread(rows.row(k), lambda: rows.picture_sizes(k), lambda: rows[k].pictures, k)


@contextmanager
def naming(sample: Unread) -> Iterator[None]:
    """A picture or question that cannot be used is told with its sample. Raises ShardError."""
    try:
        yield
    except ValueError as e:
        raise ShardError(f"sample {sample.row.get('sample_id', '')}: {e}") from e


def length_of(sample: Unread, transform: Transform, recipe: Recipe, answer: str | None) -> int:
    """Tokens of a sample, by its texts and the headers of its pictures. One with too many pictures is too long to be
    learnt from, whatever its texts. Raises ShardError."""
    with naming(sample):
        sizes = [shrunk(size, recipe.model.max_px) for size in sample.sizes()]
        if len(sizes) > (recipe.data.max_pictures or len(sizes)):
            return recipe.data.sequence_length + 1
        return transform.length(sample.row["question"], answer, sizes)


class ShardSource:
    """Windows of samples of a release's shards, through the loader, without end, epoch after epoch. `per_epoch`:
    samples an epoch, on average. Raises ShardError."""

    def __init__(self, loader: Loader, window: int, per_epoch: float) -> None:
        self._loader = loader
        self._size = window
        self.per_epoch = per_epoch
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


def shard_lanes(shards: Sequence[Path], config: LoaderConfig, window: int) -> list[ShardSource]:
    """The lanes that shards are dealt out to: of about equal length, each with shards of many
    datasets.

    They follow from the shards alone, never from who reads them. Raises ShardError.
    """
    indexes = {path: read_index(path) for path in shards}
    dataset_names = sorted({index.dataset for index in indexes.values()})
    if unknown := ", ".join(sorted(config.dataset_rates.keys() - set(dataset_names))):
        raise ShardError(
            f"data.dataset_rates: the release has no dataset {unknown}; it has {', '.join(dataset_names)}"
        )
    weights = {path: _per_epoch(index, config) for path, index in indexes.items()}
    used = [path for path in shards if weights[path]]
    if not used:
        raise ShardError(
            f"none of {len(shards)} shards has a sample of these families at a rate above 0"
        )
    count = lane_count(len(used))
    # Of each dataset the largest first
    used.sort(key=lambda p: (indexes[p].dataset, -weights[p], p.name))
    config = replace(config, buffer=min(MIN_BUFFER, LANES_BUFFER // count))
    sources: list[ShardSource] = []
    for part in _dealt_out(used, weights, count):
        per_epoch = sum(weights[path] for path in part)
        sources.append(ShardSource(Loader(part, config), window, per_epoch))
    return sources


def _dealt_out(
    shards: Sequence[Path], weights: Mapping[Path, float], count: int
) -> list[list[Path]]:
    """Each shard in turn goes to the lane that has least."""
    parts: list[list[Path]] = [[] for _ in range(count)]
    filled = [0.0] * count
    for path in shards:
        lane = filled.index(min(filled))
        parts[lane].append(path)
        filled[lane] += weights[path]
    return parts


def _per_epoch(index: Index, config: LoaderConfig) -> float:
    """Samples of a shard that an epoch takes, on average."""
    total = 0.0
    for entry in index.entries:
        rates = [float(config.rate(index.dataset, f)) for f in entry.family]
        num_drawn = sum(rate > 0 for rate in rates)
        part = min(1.0, config.per_visit / num_drawn) if config.per_visit and num_drawn else 1.0
        total += part * sum(rates)
    return total


def lane_count(parts: int) -> int:
    """2^k or 3 x 2^k, so that usual numbers of processes and workers divide it: each then reads lanes of its own."""
    max_lanes = max(1, min(MOST_LANES, parts // LANE_PARTS))
    counts = (factor << k for factor, k in product((1, 3), range(7)))
    return max(count for count in counts if count <= max_lanes)


class RowSource:
    """As ShardSource, of rows that can be asked for by number, in a new order each epoch. A row's pictures are read
    when it is due."""

    def __init__(self, rows: Sequence[Sample], window: int, seed: int, lane: int = 0) -> None:
        self._rows = rows
        self._size = window
        self._seed = seed
        self._lane = lane
        self._epoch = self._position = 0
        self.per_epoch = float(len(rows))

    def window(self) -> list[Unread]:
        order = np.random.default_rng([self._seed, self._epoch, self._lane]).permutation(
            len(self._rows)
        )
        chosen = order[self._position : self._position + self._size]
        self._position += len(chosen)
        if self._position >= len(self._rows):
            self._epoch = self._epoch + 1
            self._position = 0
        return [row_at(self._rows, int(k)) for k in chosen]

    def state_dict(self) -> dict:
        return {"epoch": self._epoch, "position": self._position, "rows": len(self._rows)}

    def load_state_dict(self, state: Mapping) -> None:
        if state["rows"] != len(self._rows):
            raise ShardError(
                f"the run was begun with {state['rows']} rows, now there are {len(self._rows)}"
            )
        self._epoch = state["epoch"]
        self._position = state["position"]


SampleSource = ShardSource | RowSource


def open_lanes(shards: Sequence[Path], recipe: Recipe) -> Sequence[SampleSource]:
    """The lanes of the recipe's files of rows, each of some windows at least, else of a release's shards. Raises
    ShardError, TrainingError."""
    data = recipe.data
    seed = recipe.train.seed
    window = data.window or recipe.train.batch
    if data.jsonl:
        rows = read_rows(data.jsonl, data.image_root, form_name(bool(data.think)))
        count = lane_count(len(rows) // window)
        return [RowSource(rows[k::count], window, seed, k) for k in range(count)]
    config = LoaderConfig(
        seed=seed,
        families=tuple(sorted(data.families)),
        per_visit=data.per_visit,
        dataset_rates=data.dataset_rates,
        family_rates=data.families,
    )
    return shard_lanes(shards, config, window)


def worker_count(requested: int, world: int, lanes: int) -> int:
    """The most workers, of those wanted, that share out lanes evenly: each its own, or as many to
    each lane.

    Others would plan, though not decode, what is not theirs.
    """
    even = [
        n for n in range(1, requested + 1) if lanes % (world * n) == 0 or (world * n) % lanes == 0
    ]
    return max(even, default=requested)
