"""A release of bars that a laptop model learns in a second: two tasks, one of which the bar is far along."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch

from annotate.embeddings.encoders import load_encoder
from annotate.embeddings.passing import camera_rows
from core.paths import Workspace
from core.tables import TABLES
from tests.kits.lake_kit import stage_run
from training.laptop.config import LaptopConfig
from training.laptop.model import LaptopModel, save_laptop
from training.laptop.pictures import embed
from training.laptop.runs import Run
from training.recipe import Recipe
from warehouse.lake import Lake
from warehouse.releases import Release, get_release
from warehouse.releases.contents import ShardFile
from warehouse.shards import ShardEpisode, picture_name, shards_stage

SIDE_PX = 64
TASKS = ("push the bar to the right", "pull the curtain down")
SMALL = {"encoder": "grey", "hidden": 32, "layers": 1, "heads": 2, "views": 2, "text_buckets": 256}


def scene(task: str, share: float) -> np.ndarray:
    """A bright bar that grows from the left, or a curtain that comes from above; uint8 [64, 64, 3]."""
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
    return Recipe(**{"name": "bars", "model": {"laptop": laptop}, "data": data, "train": train} | sections)


def make_run(task: str = TASKS[0], frames: int = 20, width: int = 8, views: int = 2) -> Run:
    """A run whose numbers say which frame they are of, and which view."""
    ramp = np.linspace(0, 1, frames, dtype=np.float32)
    numbers = np.stack([np.full((frames, width), view) + ramp[:, None] for view in range(views)])
    return Run("bars", 0, task, numbers.astype(np.float16), np.arange(frames), ramp, 2.0, 4)


def make_release(root: Path, episodes: int = 6, moments: int = 12, hidden: bool = False) -> tuple[Lake, Release]:
    """Shards of a lake that knows nothing else: the question is all that names the task. `hidden`: all pictures are as
    the first."""
    space = Workspace(root)
    lake = Lake(space)
    made = [("train", _episode(e, moments, hidden)) for e in range(episodes)]
    tables = shards_stage(space, "bars", 0, iter(made), target_bytes=200_000)
    columns = ShardFile.__dataclass_fields__
    files = tuple(ShardFile(**{k: row[k] for k in columns}) for row in tables["shards"].to_pylist())
    kept = [asdict(file) | {"name": "bars1"} for file in files]
    facts = {"name": "bars1", "config_hash": "0" * 64, "created_at": datetime.now(UTC)}
    lake.freeze(release=facts, shards=TABLES["release_shards"].rows(kept))
    return lake, get_release(lake)


def store(lake: Lake, release: Release, looked_at: Mapping[int, Sequence[str]], every: int = 1) -> Release:
    """What the cameras of some episodes showed to the small encoder, and states of all six, in the lake; the release as
    it would be after them. The camera `front` shows the scene, any other one shows it mirrored."""
    encoder = load_encoder(small_config().embeddings)
    seen, contents, states = [], [], []
    for e in range(6):
        where, shares = {"dataset": "bars", "episode_index": e, "chunk": 0}, np.arange(12) / 11
        states += [where | {"frame_index": f, "state": state_at(share)} for f, share in enumerate(shares)]
        cameras = looked_at.get(e, ())
        contents.append(where | {"num_frames": 12, "fps": 10.0, "usable_cameras": list(cameras) or ["front"]})
        for camera in cameras:
            shown = [view(camera, TASKS[e % 2], share) for share in shares[::every]]
            numbers = embed(encoder, shown).astype(np.float16)
            rows = camera_rows(where | {"camera": camera}, encoder, np.arange(0, 12, every), numbers)
            seen += rows.to_pylist()
    lake.publish(stage_run(stage="embeddings", dataset="bars"), {"embeddings": TABLES["embeddings"].rows(seen)})
    measured = {"episode_content": TABLES["episode_content"].rows(contents), "states": TABLES["states"].rows(states)}
    lake.publish(stage_run(stage="frames", dataset="bars"), measured)
    return replace(release, snapshot=lake.snapshot())


def view(camera: str, task: str, share: float) -> np.ndarray:
    shown = scene(task, share)
    return shown if camera == "front" else np.ascontiguousarray(shown[::-1, ::-1])


def state_at(share: float) -> list[float]:
    """Three numbers: two that move with the run, one that never does."""
    return [10 + 3 * share, -share, 7.0]


def make_checkpoint(folder: Path, cameras: tuple[str, ...] = (), states: tuple[int, ...] = (), **card: object) -> Path:
    """An untrained model that has been shown bars, by each camera, with words that count; and states that rise with
    them."""
    config = small_config(cameras=cameras, numbers_from="lake" if cameras else "shards", state=bool(states))
    encoder = load_encoder(config.embeddings)
    seen = embed(encoder, [scene(task, k / 9) for task in TASKS for k in range(10)])
    torch.manual_seed(0)
    model = LaptopModel(config, seen.shape[1], 4, states=states).eval()
    ramp = np.linspace(0, 1, len(seen))[:, None].repeat(model.layout.state, 1)
    shown = np.concatenate([*[seen] * model.layout.cameras, ramp], 1)
    model.normalise_by(shown)
    torch.nn.init.normal_(model.words.weight)
    window = {"profile": "balanced", "window_frames": 4, "window_step_s": 0.2, "picture_max_px": 64}
    save_laptop(model, encoder, folder, {"max_px": 64, "head": {"pooling": "laptop"}, "window": window} | card)
    return folder


def question(task: str) -> str:
    return f"<image>\n<image>\n{task}: how far?"


def _episode(e: int, moments: int, hidden: bool) -> ShardEpisode:
    task = TASKS[e % 2]
    rows, pictures = [], {}
    for t in range(moments):
        frames = [max(0, t - 1), t]
        shown = [{"episode_index": e, "camera": "front", "frame_index": f, "edit": None} for f in frames]
        for at, f in zip(shown, frames, strict=True):
            share = 0 if hidden else f / (moments - 1)
            pictures[picture_name(e, at)] = cv2.imencode(".jpg", scene(task, share)[..., ::-1])[1].tobytes()
        rows.append(
            {
                "sample_id": f"{e:08x}{t:08x}",
                "dataset": "bars",
                "episode_index": e,
                "family": "procvqa_c",
                "num_tokens": 30,
                "question": question(task),
                "answer": "",
                "progress": t / (moments - 1),
                "form": None,
                "frames": frames,
                "pictures": shown,
                "camera": "front",
            }
        )
    return ShardEpisode("bars", e, rows, pictures)


def small_config(**more: Any) -> LaptopConfig:
    return LaptopConfig(**SMALL | more)
