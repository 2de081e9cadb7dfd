"""How many tokens a second the loader gives, per core, against what one GPU takes.

    python -m benchmarks.feeding [--batches 24] [--cores 16] [--check]

Batches as training prepares them, of two recipes' shapes: packed rows out of shards (pictures of 256x256, as the corpus
keeps them) and batches of rows of a file with eight pictures of 640x480 each. All is counted in CPU time of one
thread: reading, planning, decoding, resizing, cutting into patches, and the copy into memory that processes share.
Cores are assumed to add up, since workers share nothing but a disk; so tokens/s/core x cores is what a GPU with so many
cores is given.

Beside it stand what the processor of transformers takes for the same pictures, and the planning of a batch as a share
of its preparation: consumers that share a lane all plan its batches. `--check` exits 1 below what a GPU takes.
"""

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from itertools import chain, cycle, islice
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch

from benchmarks.shards import VIDEOS
from core.values import IMAGE_MARK
from ingest.media.video import decode
from training.batches import BatchStream
from training.feeding import open_stream
from training.pictures import decode_picture
from training.recipe import Recipe
from training.tiny import make_processor, make_tokenizer
from training.transform import Transform
from warehouse.shards import Index, ShardEpisode, index_path, pack, picture_name

TAKEN = 24_000  # tokens a second: Qwen3-VL-2B on one H200 at 40 % of its arithmetic
NOISE = 4.0  # a camera's, in pixel values: frames that were enlarged would decode too quickly
QUALITY = 90
CONSUMERS = 64
EPISODES, FRAMES, PER_EPISODE, SHOWN = 8, 24, 20, 8
TEXT = "These are pictures of a robot at work on: put the red block into the tray. " * 4
ANSWER = "The gripper holds the block above the tray, so three of four steps are done. " * 6
QWEN3 = {"patch_size": 16, "image_mean": [0.5] * 3, "image_std": [0.5] * 3}
SHAPES: dict[str, dict[str, Any]] = {
    "shards": {
        "size": (256, 256),
        "limits": {"shortest_edge": 4096, "longest_edge": 589824},
        "data": {"packing": True, "window": 512, "sequence_length": 8192, "cache_mb": 0},
        "batch": 4,
    },
    "jsonl": {
        "size": (480, 640),
        "limits": {"shortest_edge": 3136, "longest_edge": 1003520},
        "data": {"window": 64, "sequence_length": 30000, "cache_mb": 0},
        "batch": 2,
    },
}


def jpegs(size: tuple[int, int], count: int) -> list[bytes]:
    """Frames of the shipped videos, in this size, with a camera's noise."""
    rng = np.random.default_rng(0)
    made = []
    for frame in islice(chain.from_iterable(decode(path) for path in cycle(VIDEOS)), count):
        rgb = cv2.resize(frame.rgb(), size[::-1], interpolation=cv2.INTER_CUBIC)
        noisy = np.clip(rgb + rng.normal(0, NOISE, rgb.shape), 0, 255).astype(np.uint8)
        made.append(cv2.imencode(".jpg", noisy, [cv2.IMWRITE_JPEG_QUALITY, QUALITY])[1].tobytes())
    return made


def write_shards(folder: Path, pictures: list[bytes]) -> list[Path]:
    """Episodes of samples with one to eight pictures each."""
    episodes = []
    for e in range(EPISODES):
        shown = [{"episode_index": e, "camera": "front", "frame_index": t, "edit": None} for t in range(FRAMES)]
        samples = []
        for k in range(PER_EPISODE):
            count = 1 + (k % 2) * (SHOWN - 1)
            row = {"sample_id": f"{e:04x}{k:04x}", "family": "procvqa_c", "num_tokens": 64 * count, "form": None}
            row |= {"question": "\n".join([IMAGE_MARK] * count) + TEXT, "answer": ANSWER, "progress": 0.5}
            samples.append(row | {"pictures": shown[k % (FRAMES - SHOWN) :][:count]})
        named = {picture_name(e, p): pictures[(e * FRAMES + t) % len(pictures)] for t, p in enumerate(shown)}
        episodes.append(ShardEpisode("bench", e, samples, named))
    path = folder / "bench-00000-train-0.tar"
    with path.open("wb") as f:
        sha256, entries = pack(f, episodes)
    index = Index(path.name, "bench", 0, "train", sha256, path.stat().st_size, tuple(entries))
    index_path(path).write_text(index.text())
    return [path]


def write_rows(folder: Path, pictures: list[bytes]) -> Path:
    names = []
    for k, jpeg in enumerate(pictures):
        names.append(f"{k:05d}.jpg")
        (folder / names[-1]).write_bytes(jpeg)
    question = "\n".join(f"{IMAGE_MARK} {100 * k // (SHOWN - 1)}%" for k in range(SHOWN)) + TEXT
    turns = [{"role": "user", "content": question}, {"role": "assistant", "content": ANSWER}]
    rows = [{"messages": turns, "images": names[k : k + SHOWN], "progress": 0.5} for k in range(len(names) - SHOWN)]
    path = folder / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def make_transform(limits: dict[str, int]) -> Transform:
    from training.recipe import TinyConfig

    processor = make_processor(make_tokenizer([TEXT, ANSWER], 2000), TinyConfig())
    for name, value in (QWEN3 | {"size": limits}).items():
        setattr(processor.image_processor, name, value)
    return Transform(processor)


def seconds(work: Callable[[], Any]) -> float:
    started = time.process_time()
    work()
    return time.process_time() - started


def feed(stream: Iterator[Any], batches: int) -> tuple[int, int, int]:
    """Tokens, pictures and bytes of so many batches, put where another process can read them."""
    tokens = pictures = size = 0
    for part in islice(stream, batches):
        for tensor in part.batch.values():
            tensor.share_memory_()
        tokens += part.tokens
        pictures += len(part.batch["image_grid_thw"])
        size += sum(tensor.nbytes for tensor in part.batch.values())
    return tokens, pictures, size


def measure(name: str, folder: Path, batches: int, cores: int) -> dict[str, Any]:
    shape = SHAPES[name]
    pictures = jpegs(shape["size"], EPISODES * FRAMES)
    transform = make_transform(shape["limits"])
    shards = write_shards(folder, pictures) if name == "shards" else []
    files = {"jsonl": [write_rows(folder, pictures)]} if name == "jsonl" else {}
    settings = {"model": {"path": folder}, "data": shape["data"] | files}
    recipe = Recipe(**{"name": "bench", **settings, "train": {"steps": 1, "batch": shape["batch"], "lr": 1}})

    def opened(first: int = 0, every: int = 1) -> BatchStream:
        return open_stream(shards, transform, recipe, first, every)

    stream = opened()
    feed(stream, 2)  # warm
    given: list[tuple[int, int, int]] = []
    spent = seconds(lambda: given.append(feed(stream, batches)))
    tokens, shown, size = given[0]
    per_core = tokens / spent
    # The last of many consumers plans the batches of all before it, and prepares its own.
    last = opened(CONSUMERS - 1, CONSUMERS)
    spent_last = seconds(lambda: feed(last, 1))
    planning = max(0.0, (spent_last - spent / batches) / (CONSUMERS - 1)) / (spent / batches)
    return {
        "data": name,
        "picture": f"{shape['size'][1]}x{shape['size'][0]}, {sum(map(len, pictures)) / len(pictures) / 1e3:.0f} kB",
        "tokens_per_picture": tokens / shown,
        "ms_per_picture": 1e3 * spent / shown,
        "ms_as_the_processor": slow(transform, pictures[:16]),
        "bytes_per_token": size / tokens,
        "tokens_per_s_per_core": per_core,
        "times_the_gpu": cores * per_core / TAKEN,
        "gpu_share": min(1.0, cores * per_core / TAKEN),
        "planning_share": planning,
    }


def slow(transform: Transform, pictures: list[bytes]) -> float:
    """Milliseconds a picture, decoded and prepared by the processor of transformers, eight at a time."""
    processor = transform.processor.image_processor

    def work() -> None:
        for k in range(0, len(pictures), 8):
            processor(images=[decode_picture(p, 4096) for p in pictures[k : k + 8]], return_tensors="pt")

    work()
    return 1e3 * seconds(work) / len(pictures)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--batches", type=int, default=24)
    parser.add_argument("--cores", type=int, default=16, help="of one GPU")
    parser.add_argument("--check", action="store_true")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    results = []
    for name in SHAPES:
        with tempfile.TemporaryDirectory() as folder:
            results.append(measure(name, Path(folder), options.batches, options.cores))
        row = results[-1]
        print(f"{name}: " + ", ".join(f"{k} {v:.4g}" if isinstance(v, float) else f"{k} {v}" for k, v in row.items()))
    if options.out:
        options.out.write_text(json.dumps(results, indent=1) + "\n")
    return 1 if options.check and any(r["times_the_gpu"] < 1 for r in results) else 0


if __name__ == "__main__":
    sys.exit(main())
