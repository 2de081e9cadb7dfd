"""Moments scored in a CPU second: progress at each picture in one pass, against a window for each moment.

    OMP_NUM_THREADS=1 .venv/bin/python -m benchmarks.each_picture [--moments 32]

An untrained model of the size of `tiny_cpu` with `head.each_weight`, windows of 4 pictures of 128x128, 8 in a batch;
the best of three times.

    one pass       windows side by side: a number at each of their pictures
    each moment    a window that ends with each moment, its last number
    seen once      the same, with what the vision tower makes of a picture kept, as rewards do
"""

import argparse
import time
from collections.abc import Callable, Sequence

import numpy as np
import torch

from annotate.samples.procvqa import progress_question
from training.heads import make_head
from training.model import ProgressModel
from training.pictures import Item
from training.recipe import HeadConfig, TinyConfig
from training.tiny import make_backbone, make_processor, make_tokenizer
from training.transform import Transform

FRAMES, BATCH, TIMES = 4, 8, 3
QUESTION = progress_question("Open the green drawer.", FRAMES)


def batches(items: Sequence[Item]) -> list[Sequence[Item]]:
    return [items[k : k + BATCH] for k in range(0, len(items), BATCH)]


def cpu_s(work: Callable[[], None]) -> float:
    took = []
    for _ in range(TIMES):
        began = time.process_time()
        work()
        took.append(time.process_time() - began)
    return min(took)


@torch.inference_mode()
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--moments", type=int, default=32)
    moments = parser.parse_args().moments
    tiny = TinyConfig()
    tokenizer = make_tokenizer([QUESTION], tiny.vocabulary)
    head = make_head(HeadConfig(each_weight=1.0), tiny.hidden)
    model = ProgressModel(make_backbone(tokenizer, tiny, 0), head).eval()
    processor = make_processor(tokenizer, tiny)
    processor.words_first = True
    transform, rng = Transform(processor), np.random.default_rng(0)
    pictures = [rng.integers(0, 255, (128, 128, 3), np.uint8) for _ in range(moments + FRAMES - 1)]
    windows = [Item(QUESTION, tuple(pictures[k : k + FRAMES])) for k in range(moments)]

    def asked(items: Sequence[Item]) -> None:
        for part in batches(items):
            model(transform(part))

    def seen_once() -> None:
        seen = [model.see(transform.pixels([picture]))[0] for picture in pictures]
        for k, part in zip(range(0, moments, BATCH), batches(windows), strict=True):
            shown = [seen[k + i + j] for i in range(len(part)) for j in range(FRAMES)]
            model(transform.seen(part, [v.grid for v in shown]), vision=shown)

    ways = {"one pass": lambda: asked(windows[::FRAMES]), "each moment": lambda: asked(windows), "seen once": seen_once}
    for name, work in ways.items():
        print(f"{name:12s} {moments / cpu_s(work):6.0f} moments per CPU second", flush=True)


if __name__ == "__main__":
    main()
