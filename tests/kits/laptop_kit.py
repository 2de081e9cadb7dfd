"""A release of bars that a laptop model learns in a second: two tasks, one of which the bar is far
along."""

from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import torch

from annotate.embeddings.encoders import load_encoder
from core.paths import Workspace
from tests.kits.training_kit import release_of, sample, shard_episode
from training.laptop.config import LaptopConfig
from training.laptop.fit import EncodedPictures
from training.laptop.model import LaptopModel, embed, load_laptop, save_laptop
from training.recipe import Recipe
from warehouse.lake import Lake
from warehouse.releases.release import Release
from warehouse.shards.shard import EntryContent

SIDE_PX = 64
TASKS = ("push the bar to the right", "pull the curtain down")
SMALL = {"encoder": "grey", "hidden": 32, "layers": 1, "heads": 2, "views": 2, "text_buckets": 256}
# A file for `proccorpus train`: few steps, and no weights that would have to be fetched
GREY_RECIPE = """name: grey
model: {laptop: {encoder: grey, hidden: 32, layers: 1, heads: 2, views: 1, text_buckets: 256}}
train: {steps: 5, batch: 8, lr: 3.0e-3}
"""


def scene(task: str, share: float) -> np.ndarray:
    """A bright bar that grows from the left, or a curtain that comes from above."""
    picture = np.full((SIDE_PX, SIDE_PX, 3), 40, np.uint8)
    part = slice(0, round(SIDE_PX * share))
    if task == TASKS[0]:
        picture[:, part] = (30, 120, 200)
    else:
        picture[part] = (200, 60, 30)
    return picture


def recipe(**sections: Any) -> Recipe:
    """A small laptop recipe; `train`, `data` and `laptop` are merged with its own."""
    train = {"steps": 60, "batch": 32, "lr": 3e-3} | sections.pop("train", {})
    data = {"negatives": {"rewound": 0.2, "other_task": 0.2}} | sections.pop("data", {})
    laptop = SMALL | sections.pop("laptop", {})
    return Recipe(
        **{"name": "bars", "model": {"laptop": laptop}, "data": data, "train": train} | sections
    )


def make_episode(task: str) -> EncodedPictures:
    """An episode whose numbers say which frame they are of, and which view."""
    ramp = np.linspace(0, 1, 20, dtype=np.float32)
    numbers = np.stack([np.full((20, 8), view) + ramp[:, None] for view in range(2)])
    return EncodedPictures(
        ("bars", 0), task, numbers.astype(np.float16), np.arange(20), ramp, 2.0, 4
    )


def make_release(root: Path) -> tuple[Lake, Release]:
    """The question is all that names the task."""
    lake = Lake(Workspace(root))
    episodes = [("train", _episode(e)) for e in range(6)]
    return lake, release_of(lake, episodes, target_bytes=200_000)


def make_checkpoint(folder: Path, **card: object) -> Path:
    """An untrained model that has been shown bars, with words that count."""
    config = small_config()
    encoder = load_encoder(config.embeddings)
    embeddings = embed(encoder, [scene(task, k / 9) for task, k in product(TASKS, range(10))])
    torch.manual_seed(0)
    model = LaptopModel(config, embeddings.shape[1], 4).eval()
    model.normalise_by(embeddings)
    torch.nn.init.normal_(model.words.weight)
    window = {"profile": "balanced", "window_frames": 4, "window_step_s": 0.2, "picture_max_px": 64}
    save_laptop(
        model,
        encoder,
        folder,
        {"max_px": 64, "head": {"pooling": "laptop"}, "window": window} | card,
    )
    return folder


def make_knowing_checkpoint(folder: Path) -> Path:
    """The same, trained a little, so that it knows bars from what it never saw."""
    make_checkpoint(folder)
    model, encoder, card = load_laptop(folder)
    embeddings = model.normalised(
        embed(encoder, [scene(task, k / 9) for task, k in product(TASKS, range(10))] * 2)
    )
    run = torch.arange(4).repeat_interleave(10)
    label = torch.linspace(0, 1, 10).repeat(4)
    model.ood.fit(embeddings, embeddings[run * 10], label, run)
    save_laptop(model, encoder, folder, card)
    return folder


def question(task: str) -> str:
    return f"<image>\n<image>\n{task}: how far?"


def _episode(e: int) -> EntryContent:
    task = TASKS[e % 2]
    shares = np.linspace(0, 1, 12).tolist()
    question_fields = {
        "question": question(task),
        "answer": "",
        "num_tokens": 30,
        "family": "procvqa_c",
        "form": None,
    }
    rows = [
        sample(e, [max(0, t - 1), t], progress=share, **question_fields)
        for t, share in enumerate(shares)
    ]
    return shard_episode(e, rows, [scene(task, share)[..., ::-1] for share in shares])


def small_config(**changes: Any) -> LaptopConfig:
    return LaptopConfig(**SMALL | changes)
