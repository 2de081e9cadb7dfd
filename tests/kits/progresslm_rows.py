"""Invented rows as ProgressLM publishes them: a small file with pictures, and every variant."""

import json
from pathlib import Path

import cv2
import numpy as np

from annotate.samples.wording import answer_text, question_text
from core.paths import Workspace
from training.progresslm_data import read_rows, truth_of
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


# The published files: each writes numbers, pictures and what cannot be answered in its own way
_TEXT = {"text_demo": ["[left] lift the lid", "[left] put it down ", "[right] pour the tea"]}
_SEEN = {"visual_demo": [f"camera_top_{k:04d}.jpg" for k in (0, 40, 90, 130)]}
_BOTH = {
    "visual_demo": [f"camera_left_{k:04d}.jpg" for k in (0, 40, 90, 130)],
    "camera_combination": "camera_left+camera_top",
}
_NONE = {"closest_idx": "n/a", "progress_score": "n/a"}
_NAME = "camera_top_{:04d}.jpg"
_EDITED = {"stage_to_estimate": ["camera_top_{:04d}_edit.jpg"]}
PUBLISHED = {
    "extended__visual_cross_view_3k": _BOTH | {"delta": "+6%"},
    "extended__visual_same_view_3k": _SEEN | {"delta": "+6%"},
    "prog-bench__text-normal": _TEXT
    | {"total_steps": 3, "stage_to_estimate": _NAME, "closest_idx": 1},
    "prog-bench__text-unanswerable": _TEXT | _NONE | {"stage_to_estimate": _NAME},
    "prog-bench__visual-unanswerable": _SEEN | _NONE | _EDITED | {"delta": "n/a"},
    "prog-bench__visual_cross_view": _BOTH | {"delta": "+6%"},
    "prog-bench__visual_same_view": _SEEN | {"delta": "+6%"},
    "rl__text_positive": _TEXT | {"closest_idx": 1},
    "rl__text_unanswerable": _TEXT | _NONE | {"stage_to_estimate": _NAME},
    "rl__visual_cross_view": _SEEN | {"delta": "+6%"},
    "rl__visual_negative_clip": _SEEN
    | _NONE
    | {"delta": "+5%", "stage_to_estimate": [f"other_run_{_NAME}"]},
    "rl__visual_unanswerable": _SEEN | _NONE | _EDITED | {"delta": "+6%"},
}


def published_rows(name: str) -> list[dict]:
    """Rows of one published file: one run's pictures in their order, with what each shows as their
    label."""
    rows = []
    for k in range(4):
        default_fields = {
            "id": "bar/run",
            "task_goal": "pour the tea",
            "total_steps": "3",
            "data_source": "bar",
        }
        default_fields |= {
            "stage_to_estimate": [_NAME],
            "closest_idx": f"{min(k, 2) + 1}",
            "progress_score": f"{10 + 25 * k}%",
        }
        row = default_fields | PUBLISHED[name]
        stage = row["stage_to_estimate"]
        number = 12 + 30 * k
        if isinstance(stage, list):
            row["stage_to_estimate"] = [s.format(number) for s in stage]
        else:
            row["stage_to_estimate"] = stage.format(number)
        rows.append(row)
    return rows


def assert_rows_are_read(path: Path, rows: list[dict], crossed: bool) -> None:
    """The truth of each row of a file is read; `crossed`: it is asked of another camera."""
    root = path.parent / "pictures"
    for row in rows:
        stage = row["stage_to_estimate"]
        for name in [*row.get("visual_demo", ()), *(stage if isinstance(stage, list) else [stage])]:
            (root / row["id"]).mkdir(parents=True, exist_ok=True)
            (root / row["id"] / name).touch()
    samples = read_rows([path], root, "think")
    for row, truth in zip(rows, map(truth_of, samples), strict=True):
        assert truth.demo_count == len(row.get("text_demo") or row["visual_demo"])
        assert (truth.ref is None) == (row["closest_idx"] == "n/a")
        assert row["progress_score"] == (
            "n/a" if truth.score_percent is None else f"{truth.score_percent:g}%"
        )
    assert {"another camera" in sample.row["question"] for sample in samples} == {crossed}
