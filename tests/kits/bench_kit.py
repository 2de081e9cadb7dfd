"""Small benchmarks in the published row formats, with pictures made here, and a model of a few
layers."""

from collections import Counter, defaultdict
from collections.abc import Mapping
from itertools import product
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from eval.benchmarks.load import load_benchmark
from eval.benchmarks.options import EvaluationOptions
from eval.benchmarks.question import Question
from eval.runners.prompt import ModelReply, Prompt
from tests.kits.lerobot_writer import write_json_lines

NO_FRAMES = Path("frames of videos go to image_root")
STEPS = ["reach for the cup", "lift the cup", "place the cup on the plate"]


def questions_of(
    benchmark: str, data: str | None = None, cache: Path | None = None, **options: object
) -> list[Question]:
    evaluation_options = EvaluationOptions.model_validate(
        {"benchmark": benchmark, "data": data} | options
    )
    return load_benchmark(evaluation_options, NO_FRAMES, cache)


def picture(path: Path, share: float, seed: int = 0) -> None:
    """A bar that has grown to a share of the width."""
    rgb = np.full((48, 64, 3), 40 + seed, np.uint8)
    rgb[:, : round(64 * share)] = (30, 120, 220)
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(path), rgb, [cv2.IMWRITE_JPEG_QUALITY, 95])


def make_progress_bench(root: Path) -> Path:
    """Two recordings in all five parts of progress-bench and both of human-bench."""
    rows = defaultdict[str, list[dict[str, Any]]](list)
    unanswerable = {"closest_idx": "n/a", "progress_score": "n/a"}
    robomind = {"data_source": "robomind_h5_franka_3rgb", "total_steps": "3"}
    for number in (1, 2):
        recording = f"h5_franka_3rgb/cup_on_plate/1015_17284{number}.00"
        folder = root / "images" / recording
        for camera, frame in product(("top", "left"), range(0, 31, 5)):
            picture(folder / f"camera_{camera}_{frame:04d}.jpg", frame / 30, number)
        picture(folder / "camera_top_0010_edit.jpg", 0.9, 60)
        base = {"id": recording, "task_goal": "put the cup on the plate"}
        franka = base | {"data_source": "h5_franka_3rgb", "total_steps": "3"}
        text = franka | {"text_demo": STEPS, "total_steps": 3}
        for k, frame in enumerate((10, 20, 30), 1):
            state = {"stage_to_estimate": f"camera_top_{frame:04d}.jpg"}
            answer = {"closest_idx": k, "progress_score": f"{100 * k // 3}%"}
            rows["text-normal"].append(text | state | answer)
            edited = {"task_goal": "open the drawer", "total_steps": "3"}
            rows["text-unanswerable"].append(text | edited | state | unanswerable)
        demos = {
            camera: {"visual_demo": [f"camera_{camera}_{f:04d}.jpg" for f in (0, 10, 20, 30)]}
            for camera in ("top", "left")
        }
        crossed = base | robomind | {"camera_combination": "camera_left+camera_top"}
        for frame in (5, 15, 25):
            state = {"stage_to_estimate": [f"camera_top_{frame:04d}.jpg"], "delta": "+7%"}
            state |= {
                "closest_idx": str(frame // 10 + 1),
                "progress_score": f"{100 * frame // 30}%",
            }
            rows["visual_same_view"].append(franka | demos["top"] | state)
            rows["visual_cross_view"].append(crossed | demos["left"] | state)
        state = {"stage_to_estimate": ["camera_top_0010_edit.jpg"], "delta": "n/a"}
        edited = base | robomind | demos["top"] | state
        rows["visual-unanswerable"].append(edited | unanswerable)
    human: dict[str, Any] = {
        "id": "folding_paper/clip_1",
        "task_goal": "fold the paper",
        "data_source": "human",
    }
    human["total_steps"] = 3
    for n in range(4):
        picture(root / "images" / human["id"] / f"{n}.jpg", n / 3, 90)
        state = {"stage_to_estimate": f"{n}.jpg", "progress_score": f"{100 * n / 3:.2f}%"}
        by_text = {"text_demo": STEPS, "closest_idx": max(1, n)}
        rows["text_demo_human_activities"].append(human | state | by_text)
        by_pictures = {"visual_demo": [f"{k}.jpg" for k in range(4)], "closest_idx": n + 1}
        rows["visual_demo_human_activities"].append(human | state | by_pictures)
    for file, file_rows in rows.items():
        folder = "human-bench" if "human" in file else "prog-bench"
        write_json_lines(root / folder / f"{file}.jsonl", file_rows)
    return root


class Scripted:
    """A runner that says what it is told to, and counts."""

    has_head = False

    def __init__(
        self, say=lambda prompt: ModelReply(prompt.key, text="50%"), settings=None
    ) -> None:
        self.settings: Mapping[str, Any] = settings or {"runner": "scripted"}
        self.say = say
        self.asked = []

    def answer(self, prompts):
        for prompt in prompts:
            self.asked.append(prompt)
            yield self.say(prompt)

    def ask(self, asked):
        return list(self.answer([a.sent() for a in asked]))


def share_seen(prompt: Prompt) -> float:
    """Of the last picture of a prompt: how wide its bar is."""
    rgb = cv2.imdecode(np.frombuffer(prompt.pictures[-1].read(), np.uint8), cv2.IMREAD_COLOR)
    assert rgb is not None, "the picture can be read"
    return float((rgb[24, :, 2] > 150).mean())


def by_part(questions: list[Question]) -> dict[str, int]:
    return dict(Counter(q.part for q in questions))
