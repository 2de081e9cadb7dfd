"""Labels against hand-labelled truth: figures worked out by hand, or by the script that people scored with."""

import json
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from annotate.segments import IDLE, STEP, Segment
from core.errors import UserError
from core.step_names import is_name
from eval.annotators.labels import ComparedLabel
from eval.annotators.scoring import random_cuts, score_label
from eval.annotators.truth import read_truth

FPS = 10


def segment(name: str, start: int, end: int, kind: str = STEP, completed: bool = True, step: int | None = None) -> dict:
    return {
        "name": name,
        "kind": kind,
        "start_frame": start,
        "end_frame": end,
        "attempt": 1,
        "completed": completed,
        "step": step,
    }


# A grasp that fails, is done again, and a thing that is carried in two parts with a rest between them
PASS_A = [
    segment("reach", 0, 20, step=0),
    segment("grasp", 20, 30, completed=False, step=1),
    segment("grasp", 30, 40, step=1),
    segment("carry", 40, 60, step=2),
    segment("hold still", 60, 70, IDLE),
    segment("carry", 70, 90, step=2),
    segment("withdraw", 90, 100, "retreat"),
]
PASS_B = [
    segment("reach", 0, 22, step=0),
    segment("grasp", 22, 44, step=1),
    segment("carry", 44, 88, step=2),
    segment("withdraw", 88, 100, "retreat"),
]


def write_truth(folder: Path, episode: int, **changes: object) -> Path:
    """A truth file of 100 frames."""
    truth = {
        "dataset": "arm",
        "episode_index": episode,
        "num_frames": 100,
        "fps": FPS,
        "task": "put it there",
        "success": True,
        "boundaries": [
            {"frame": 21, "spread": 2, "before": "reach", "after": "grasp", "kind_after": "step"},
            {"frame": 42, "spread": 4, "before": "grasp", "after": "carry", "kind_after": "step"},
            {"frame": 66, "spread": 6, "before": "carry", "after": "hold still", "kind_after": "idle"},
            {"frame": 89, "spread": 2, "before": "carry", "after": "withdraw", "kind_after": "retreat"},
        ],
        "events": [
            {"type": "other", "frame": 28, "spread": 0},
            {"type": "grasp", "frame": 41, "spread": 1},
            {"type": "release", "frame": 88, "spread": 0},
        ],
        "only_a": 2,
        "only_b": 0,
        "pass_a": PASS_A,
        "pass_b": PASS_B,
        "notes": [None, None],
    }
    file = folder / "arm" / f"{episode:06d}.json"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(truth | changes))
    return file


def label(*cuts: int, n: int = 100, names: tuple[str, ...] = ("Grasp it",)) -> ComparedLabel:
    """Steps between cuts, with progress that is the square of the time."""
    ends = [0, *cuts, n]
    spans = enumerate(pairwise(ends))
    own = ((names[k % len(names)], a, b, k) for k, (a, b) in spans)
    segments = tuple(Segment(name, a, b, STEP, True, k, named=is_name(name)) for name, a, b, k in own)
    return ComparedLabel(segments, np.linspace(0, 1, n) ** 2, "motion", 0.5)


# Cuts


def test_random_cuts_are_the_same_for_a_seed_and_lie_inside() -> None:
    draws = random_cuts(3, 50, 7)
    assert draws == random_cuts(3, 50, 7)
    assert draws != random_cuts(3, 50, 8)
    assert all(len(set(draw)) == 3 and 1 <= min(draw) <= max(draw) <= 49 for draw in draws)


# Episodes


def test_a_label_of_another_recording_is_refused(tmp_path: Path) -> None:
    write_truth(tmp_path, 3)
    with pytest.raises(ValueError, match="arm episode 3: 90 frames are labelled, the truth has 100"):
        score_label(label(n=90), read_truth(tmp_path, "arm")[3])


# Files that are wrong


def test_a_file_needs_no_more_than_its_segments(tmp_path: Path) -> None:
    """Boundaries are those that both passes have, within 0.5 s of one another."""
    file = write_truth(tmp_path, 0)
    content = json.loads(file.read_text())
    least = {name: content[name] for name in ("episode_index", "num_frames", "fps", "pass_a", "pass_b")}
    file.write_text(json.dumps(least))
    truth = read_truth(tmp_path, "arm")[0]
    # 20 beside 22, 40 beside 44, 90 beside 88; 30, 60 and 70 are in one pass alone
    assert truth.boundaries == (21, 42, 89)
    assert (truth.success, truth.events) == (None, ())
    file.write_text(json.dumps(least | {"pass_b": None}))
    assert read_truth(tmp_path, "arm")[0].boundaries == (20, 30, 40, 60, 70, 90)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"fps": "ten"}, "0.json: fps: input should be a valid number"),
        ({"pass_a": []}, "0.json: pass_a: list should have at least 1 item"),
        ({"boundaries": [{"frame": 100}]}, "0.json: boundary at frame 100, the episode has 100 frames"),
        ({"events": [{"type": "grasp", "frame": 120}]}, "0.json: event at frame 120, the episode has 100 frames"),
        ({"num_frames": 110}, "pass_a ends at frame 100, the episode has 110 frames"),
        ({"pass_b": [PASS_B[0], PASS_B[2]]}, "pass_b: 'carry' has frames 44 to 88, expected to begin at 22"),
        ({"pass_a": [PASS_A[0] | {"kind": "walk"}]}, "pass_a.0.kind: input should be 'step', 'idle', 'done' or 'ret"),
    ],
)
def test_a_wrong_file_is_named_with_what_is_wrong(tmp_path: Path, changes: dict, message: str) -> None:
    write_truth(tmp_path, 0, **changes)
    with pytest.raises(UserError, match=message):
        read_truth(tmp_path, "arm")
