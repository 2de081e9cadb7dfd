"""Training data: items from a release's shards, and batches of them without end."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import cv2
import numpy as np

from training.transform import Item, decode_picture
from warehouse.shards import Sample, read_samples

SHIFT = 0.04  # of the picture's side, at most
GAIN, OFFSET = 0.2, 0.1  # of the pixel values, at most


def item_of(sample: Sample, max_px: int) -> Item:
    """A stored sample as the transform takes it; the one way for training and evaluation."""
    pictures = tuple(decode_picture(p, max_px) for p in sample.pictures)
    return Item(sample.row["question"], pictures, sample.row["answer"], sample.row["progress"])


def items_of_shards(paths: Sequence[Path], families: Sequence[str], max_px: int) -> list[Item]:
    """All samples of some shards, decoded and shrunk. For corpora that fit into memory (the tiny recipe)."""
    return [item_of(s, max_px) for s in read_samples(paths, frozenset(families))]


def batches(items: Sequence[Item], size: int, rng: np.random.Generator, augmented: bool) -> Iterator[list[Item]]:
    """Batches for ever: each pass goes over all items once, in a new order."""
    pending: list[int] = []
    while True:
        while len(pending) < size:
            pending += rng.permutation(len(items)).tolist()
        chosen, pending = pending[:size], pending[size:]
        yield [augment(items[i], rng) if augmented else items[i] for i in chosen]


def augment(item: Item, rng: np.random.Generator) -> Item:
    """The same shift, gain and colour cast on all pictures of an item: its motion stays what it was."""
    dx, dy = rng.uniform(-SHIFT, SHIFT, 2)
    gain = 1 + rng.uniform(-GAIN, GAIN) + rng.uniform(-GAIN, GAIN, 3) / 4
    offset = 255 * rng.uniform(-OFFSET, OFFSET)
    pictures = []
    for picture in item.pictures:
        h, w = picture.shape[:2]
        move = np.array([[1, 0, dx * w], [0, 1, dy * h]], np.float32)
        moved = cv2.warpAffine(picture, move, (w, h), borderMode=cv2.BORDER_REPLICATE)
        pictures.append(np.clip(moved * gain + offset, 0, 255).astype(np.uint8))
    return Item(item.question, tuple(pictures), item.answer, item.progress)
