"""Invented rows as ProgressLM publishes them: a small file with pictures, and every variant."""

import json
from pathlib import Path

import cv2
import numpy as np

from annotate.samples.wording import answer_text, question_text
from core.paths import Workspace
from training.recipe import Recipe
from training.train import train
from warehouse.lake import Lake
from warehouse.releases.release import Release

STEPS = 3
TINY = {
    "vocabulary": 600,
    "hidden": 64,
    "layers": 2,
    "heads": 4,
    "vision_hidden": 64,
    "vision_layers": 2,
    "max_px": 32,
}


def write_picture(path: Path, share: float) -> None:
    """A bar that grows with progress."""
    picture = np.full((32, 32, 3), 40, np.uint8)
    picture[:, : round(32 * share)] = (200, 120, 30)
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(path), picture)


def source_rows(folder: Path) -> list[dict]:
    """Rows of RL, a demonstration of four pictures each, the last one unanswerable; pictures are
    written."""
    for k in range(STEPS + 1):
        write_picture(folder / "bar/run" / f"camera_top_{k:04d}.jpg", k / STEPS)
    rows = []
    for i in range(8):
        share = (i + 0.5) / 8
        write_picture(folder / "bar/run" / f"camera_top_{100 + i:04d}.jpg", share)
        has_target = i < 7
        rows.append({
            "id": "bar/run", "task_goal": "fill the bar",
            "visual_demo": [f"camera_top_{k:04d}.jpg" for k in range(STEPS + 1)], "total_steps": str(STEPS),
            "stage_to_estimate": [f"camera_top_{100 + i:04d}.jpg"],
            "closest_idx": str(round(share * STEPS) + 1) if has_target else "n/a",
            "progress_score": f"{round(100 * share)}%" if has_target else "n/a",
        })  # fmt: skip
    return rows


def conversations(rows: list[dict]) -> list[dict]:
    """The same rows as SFT with reasons, in our wording."""
    rows_made = []
    for row in rows:
        names = [*row["visual_demo"], *row["stage_to_estimate"]]
        question = question_text(
            "visual", row["task_goal"], [k / STEPS for k in range(STEPS + 1)], (), "think"
        )
        ref = row["closest_idx"]
        score = row["progress_score"]
        answer = answer_text(
            "think", ref_think="a", ref=ref, score_think="n/a" if ref == "n/a" else "b", score=score
        )
        turns = [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]
        rows_made.append({"messages": turns, "images": [f"{row['id']}/{name}" for name in names]})
    return rows_made


def write_rows(path: Path, rows: list[dict]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def empty_corpus(folder: Path) -> tuple[Lake, Release]:
    """A lake to record runs in, and a release of nothing: rows come from files."""
    lake = Lake(Workspace(folder / "workspace"))
    return lake, Release("none", lake.snapshot(), "0" * 64, ())


def teach(folder: Path, family: str = "qwen3_vl", steps: int = 40, **tiny: int) -> Path:
    """A tiny model that answers in the format, about at random; and its folder has the rows it was
    taught."""
    rows = source_rows(folder / "images")
    write_rows(folder / "rl.jsonl", rows)
    data = {
        "jsonl": [write_rows(folder / "sft.jsonl", conversations(rows))],
        "image_root": folder / "images",
    }
    learnt = {"steps": steps, "batch": 4, "lr": 1e-2, "warmup": 0.1}
    sections = {"model": {"tiny": TINY | {"family": family} | tiny}, "data": data, "train": learnt}
    return train(
        *empty_corpus(folder), Recipe.model_validate({"name": "taught"} | sections)
    ).checkpoint
