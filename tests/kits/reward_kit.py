"""A tiny checkpoint that says on which window it was trained, and runs of a bar that grows."""

from pathlib import Path
from typing import Any

import numpy as np

from annotate.samples.procvqa import progress_question
from tests.kits import lerobot_writer as writer
from training.backbones import make_backbone, make_processor, make_tokenizer
from training.model import ProgressModel, make_head, save_model
from training.recipe import HeadConfig, TinyConfig

SIZES: Any = {
    "vocabulary": 400,
    "hidden": 32,
    "layers": 2,
    "heads": 4,
    "vision_hidden": 32,
    "vision_layers": 2,
}
FPS = 10.0
TASK = "push the bar to the right"
WINDOW = {"profile": "balanced", "window_frames": 4, "window_step_s": 0.4, "picture_max_px": 64}


def make_checkpoint(
    folder: Path, family: Any = "qwen3_vl", head: HeadConfig | None = HeadConfig(), **card: object
) -> Path:
    config = TinyConfig(family=family, max_px=64, **SIZES)
    tokenizer = make_tokenizer([progress_question(TASK, 4)], config.vocabulary)
    backbone = make_backbone(tokenizer, config, 3)
    model = ProgressModel(backbone, make_head(head, config.hidden) if head else None)
    facts = {"max_px": 64, "head": head and head.model_dump(mode="json"), "window": WINDOW} | card
    save_model(model, make_processor(tokenizer, config), folder, facts)
    return folder


def bar(share: float, height: int = 48, width: int = 64) -> np.ndarray:
    rgb = np.full((height, width, 3), 40, np.uint8)
    rgb[:, : round(width * share)] = (30, 120, 220)
    return rgb


def bars(count: int = 30) -> list[np.ndarray]:
    return [bar(k / max(1, count - 1)) for k in range(count)]


def write_video(path: Path, pictures: list[np.ndarray], fps: int = 10) -> Path:
    """Its index before its pictures: a part of the file is a video that is cut off."""
    options = {"crf": "10", "g": "4", "bf": "0"}
    return writer.write_video(
        path, pictures, fps=fps, options=options, container={"movflags": "+faststart"}
    )
