"""A release so small that a model of two layers goes through it in a second: bars that grow with
progress."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import UTC, datetime
from itertools import chain
from operator import itemgetter
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from core.paths import Workspace
from core.tables import TABLES
from training.attention import set_attention
from training.backbones import make_backbone, make_processor, make_tokenizer
from training.model import ProgressModel, make_head
from training.pictures import Item
from training.recipe import HeadConfig, Recipe, TinyConfig, load_recipe
from training.runs import Point, TrainingRun
from training.train import train
from training.transform import Transform
from warehouse.lake import Lake
from warehouse.releases.contents import ShardFile
from warehouse.releases.release import Release, get_release
from warehouse.shards.shard import EntryContent, picture_name, shards_stage

FAMILIES = ("qwen3_vl", "qwen2_5_vl", "qwen3_5", "internvl")
TINY = {
    "vocabulary": 400,
    "hidden": 64,
    "layers": 2,
    "vision_hidden": 64,
    "vision_layers": 2,
    "max_px": 64,
}
SIDE_PX = 64


def bar(share: float) -> np.ndarray:
    picture = np.full((SIDE_PX, SIDE_PX, 3), 40, np.uint8)
    picture[:, : round(SIDE_PX * share)] = (200, 120, 30)
    return picture


def make_items(count: int = 8) -> list[Item]:
    """One to three pictures each."""
    items = []
    for i in range(count):
        share = i / max(1, count - 1)
        n = 1 + i % 3
        question = "\n".join(["<image>"] * n) + "\nHow far is the bar?"
        items.append(
            Item(question, (bar(share),) * n, f"<progress>{100 * share:.2f}%</progress>", share)
        )
    return items


def make_parts(
    items: list[Item],
    family: str = "qwen3_vl",
    head: HeadConfig | None = None,
    seed: int = 0,
    attention: str = "sdpa",
):
    """A tiny model with a head, and its transform."""
    tiny = TinyConfig(**TINY, family=family)  # type: ignore[arg-type]
    tokenizer = make_tokenizer(
        list(chain.from_iterable((i.question, i.answer or "") for i in items)), tiny.vocabulary
    )
    backbone = make_backbone(tokenizer, tiny, seed)
    set_attention(backbone, attention)
    model = ProgressModel(backbone, make_head(head or HeadConfig(), tiny.hidden)).eval()
    return model, Transform(make_processor(tokenizer, tiny))


def recipe(name: str = "test", family: str = "qwen3_vl", **sections: Any) -> Recipe:
    """A tiny recipe; `train` is merged with small defaults."""
    train = {"steps": 4, "batch": 4, "lr": 1e-3} | sections.pop("train", {})
    if "epochs" in train:
        del train["steps"]
    tiny = {"tiny": TINY | {"family": family}}
    return Recipe(**{"name": name, "model": tiny, "head": {}, "train": train} | sections)


def small(name: str, **train: Any) -> Recipe:
    """A built-in recipe as it is, but for its size: on a tiny model, in short rows, for four steps,
    in float32."""
    recipe_values = load_recipe(name, begins=False).model_dump(exclude_unset=True)
    data = {
        "families": {"procvqa_b": 1, "procvqa_c": 1},
        "sequence_length": 256,
        "window": 16,
        "think": None,
    }
    few = {
        "epochs": None,
        "steps": 4,
        "batch": 2,
        "accumulation": 2,
        "evaluate_every": 0,
        "save_every": 2,
    }
    few |= {"dtype": "float32", "distributed": "none", "compile": False} | train
    if "longer_length" in recipe_values["data"]:
        data["longer_length"] = 384
    sections = {
        "model": {"tiny": TINY},
        "data": recipe_values["data"] | data | {"workers": 0},
        "train": recipe_values["train"] | few,
    }
    return Recipe(**recipe_values | sections)


def sample(e: int, frames: list[int], **fields: Any) -> dict[str, Any]:
    """A sample of an episode of bars that shows some of its frames."""
    picture_rows = [
        {"episode_index": e, "camera": "front", "frame_index": f, "edit": None} for f in frames
    ]
    of_bars = {
        "dataset": "bars",
        "episode_index": e,
        "camera": "front",
        "frames": frames,
        "pictures": picture_rows,
    }
    return {"sample_id": f"{e:08x}{frames[-1]:08x}"} | of_bars | fields


def shard_episode(
    e: int, rows: list[dict[str, Any]], episode_pictures: Sequence[np.ndarray]
) -> EntryContent:
    """An episode of bars with its samples; `episode_pictures` is what its frames show, BGR."""
    named_frames = {
        picture_name(e, p): p["frame_index"]
        for p in chain.from_iterable(map(itemgetter("pictures"), rows))
    }
    pictures = {
        name: cv2.imencode(".jpg", episode_pictures[frame])[1].tobytes()
        for name, frame in named_frames.items()
    }
    return EntryContent("bars", e, rows, pictures)


def _episodes(count: int, moments: int, held_out: int) -> Iterator[tuple[str, EntryContent]]:
    shares = [t / (moments - 1) for t in range(moments)]
    for e in range(count + held_out):
        rows = [
            sample(
                e, [t], progress=share, answer=f"<progress>{100 * share:.2f}%</progress>", num_tokens=30 + t,
                family="procvqa_c" if t % 4 else "procvqa_b", form="think" if t % 2 else "no_think",
                question="<image>\nHow far is the bar?" + " Look closely." * (t % 3),
            )
            for t, share in enumerate(shares)
        ]  # fmt: skip
        yield (
            "train" if e < count else "val",
            shard_episode(e, rows, [bar(share) for share in shares]),
        )


def release_of(
    lake: Lake,
    episodes: Iterable[tuple[str, EntryContent]],
    target_bytes: int = 20_000,
    name: str = "bars1",
) -> Release:
    """Of shards of bars with these episodes, by split."""
    tables = shards_stage(lake.workspace, "bars", 0, iter(episodes), target_bytes=target_bytes)
    columns = ShardFile.__dataclass_fields__
    shards = tables["shards"].select(list(columns)).to_pylist()
    shard_rows = [row | {"name": name} for row in shards]
    release_row = {"name": name, "config_hash": "0" * 64, "created_at": datetime.now(UTC)}
    lake.freeze(release=release_row, shards=TABLES["release_shards"].rows(shard_rows))
    return get_release(lake, name)


def make_release(
    root: Path, episodes: int = 4, moments: int = 8, held_out: int = 0
) -> tuple[Lake, Release]:
    """Two shards or more; `held_out`: so many episodes more, in the split val, of which the lake
    knows the lengths."""
    facts = {"dataset": "bars", "chunk": 0, "num_rows": moments, "fps": 10.0}
    rows = [facts | {"episode_index": e} for e in range(episodes, episodes + held_out)]
    lake = Lake(Workspace(root))
    if rows:
        lake.upsert("episodes", episode_facts=TABLES["episode_facts"].rows(rows))
    return lake, release_of(lake, _episodes(episodes, moments, held_out))


class KilledError(Exception):
    """What a kill in the middle of a run stands for."""


def kill_at(step: int) -> Callable[[Point], None]:
    """Told of each point of a run, it ends that at this one."""

    def kill(point: Point) -> None:
        if point.step == step:
            raise KilledError

    return kill


def killed_and_resumed(
    lake: Lake, release: Release, run_recipe: Recipe, kill_step: int
) -> TrainingRun:
    with pytest.raises(KilledError):
        train(lake, release, run_recipe, kill_at(kill_step))
    return train(lake, release, run_recipe, resume=True)
