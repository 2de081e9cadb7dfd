"""How many tokens a second the loader gives, per core, against what one GPU takes.

    python -m benchmarks.feeding [--batches 24] [--cores 16] [--check]

Batches as training prepares them: packed rows of 8192 tokens out of shards, pictures of 256x256 as the corpus keeps
them. All is counted in CPU time of one thread: reading, planning, decoding, resizing, cutting into patches, and the
copy into memory that processes share. Cores are assumed to add up, since workers share nothing but a disk; so
tokens/s/core x cores is what a GPU with so many cores is given. `--check` exits 1 below what a GPU takes.
"""

import sys
import tempfile
import time
from collections.abc import Iterator
from itertools import chain, cycle, islice
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch

from benchmarks.harness import arguments, exit_code
from benchmarks.shards import VIDEOS
from core.values import IMAGE_MARK
from ingest.media.video import decode
from tests.kits.shard_kit import write
from training.backbones import make_processor, make_tokenizer
from training.batches import open_stream
from training.recipe import Recipe, TinyConfig
from training.transform import Transform
from warehouse.shards.shard import EntryContent, picture_name

TAKEN = 24_000  # tokens a second: Qwen3-VL-2B on one H200 at 40 % of its arithmetic
NOISE = 4.0  # a camera's, in pixel values: frames that were enlarged would decode too quickly
QUALITY = 90
EPISODES = 8
FRAMES = 24
PER_EPISODE = 20
SHOWN = 8
TEXT = "These are pictures of a robot at work on: put the red block into the tray. " * 4
ANSWER = "The gripper holds the block above the tray, so three of four steps are done. " * 6
QWEN3 = {"patch_size": 16, "image_mean": [0.5] * 3, "image_std": [0.5] * 3}
SIZE = (256, 256)
LIMITS = {"shortest_edge": 4096, "longest_edge": 589824}
DATA = {"packing": True, "window": 512, "sequence_length": 8192, "cache_mb": 0}
BATCH = 4


def jpegs(count: int) -> list[bytes]:
    """Frames of the shipped videos, with a camera's noise."""
    rng = np.random.default_rng(0)
    encoded_pictures = []
    for frame in islice(chain.from_iterable(decode(path) for path in cycle(VIDEOS)), count):
        rgb = cv2.resize(frame.rgb(), SIZE, interpolation=cv2.INTER_CUBIC)
        noisy = np.clip(rgb + rng.normal(0, NOISE, rgb.shape), 0, 255).astype(np.uint8)
        encoded_pictures.append(
            cv2.imencode(".jpg", noisy, [cv2.IMWRITE_JPEG_QUALITY, QUALITY])[1].tobytes()
        )
    return encoded_pictures


def write_shards(folder: Path, pictures: list[bytes]) -> list[Path]:
    """Episodes of samples with one to eight pictures each."""
    episodes = []
    for e in range(EPISODES):
        picture_rows = [
            {"episode_index": e, "camera": "front", "frame_index": t, "edit": None}
            for t in range(FRAMES)
        ]
        samples = []
        for k in range(PER_EPISODE):
            count = 1 + (k % 2) * (SHOWN - 1)
            row = {
                "sample_id": f"{e:04x}{k:04x}",
                "family": "procvqa_c",
                "num_tokens": 64 * count,
                "form": None,
            }
            row |= {
                "question": "\n".join([IMAGE_MARK] * count) + TEXT,
                "answer": ANSWER,
                "progress": 0.5,
            }
            samples.append(row | {"pictures": picture_rows[k % (FRAMES - SHOWN) :][:count]})
        named_pictures = {
            picture_name(e, p): pictures[(e * FRAMES + t) % len(pictures)]
            for t, p in enumerate(picture_rows)
        }
        episodes.append(EntryContent("bench", e, samples, named_pictures))
    return [write(folder, episodes, "bench-00000-train-0.tar")]


def make_transform() -> Transform:
    processor = make_processor(make_tokenizer([TEXT, ANSWER], 2000), TinyConfig())
    for name, value in (QWEN3 | {"size": LIMITS}).items():
        setattr(processor.image_processor, name, value)
    return Transform(processor)


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


def measure(folder: Path, batches: int, cores: int) -> dict[str, float]:
    pictures = jpegs(EPISODES * FRAMES)
    settings: dict[str, Any] = {
        "model": {"path": folder},
        "data": DATA,
        "train": {"steps": 1, "batch": BATCH, "lr": 1},
    }
    stream = open_stream(
        write_shards(folder, pictures), make_transform(), Recipe(name="bench", **settings), 0, 1
    )
    feed(stream, 2)  # warm
    start_s = time.process_time()
    tokens, num_pictures, size = feed(stream, batches)
    spent = time.process_time() - start_s
    return {
        "kb_per_picture": sum(map(len, pictures)) / len(pictures) / 1e3,
        "tokens_per_picture": tokens / num_pictures,
        "ms_per_picture": 1e3 * spent / num_pictures,
        "bytes_per_token": size / tokens,
        "tokens_per_s_per_core": tokens / spent,
        "times_the_gpu": cores * tokens / spent / TAKEN,
    }


def main() -> int:
    parser = arguments(__doc__, check=True)
    parser.add_argument("--batches", type=int, default=24)
    parser.add_argument("--cores", type=int, default=16, help="of one GPU")
    options = parser.parse_args()
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    with tempfile.TemporaryDirectory() as folder:
        figures = measure(Path(folder), options.batches, options.cores)
    print(", ".join(f"{name} {value:.4g}" for name, value in figures.items()))
    return exit_code(["what a GPU takes"] if figures["times_the_gpu"] < 1 else [], options.check)


if __name__ == "__main__":
    sys.exit(main())
