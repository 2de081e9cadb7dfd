"""Question-answer samples of the ProcVQA families a (segmentation) and c (remaining actions and progress).

Everything random is seeded per (seed, dataset, episode, family), so samples do not depend on the order of work or on
the number of workers. A quota per episode and windows in seconds make them independent of the frame rate.
"""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import pyarrow as pa
from pydantic import BaseModel, ConfigDict, Field

from annotate.segments import STEP, Segment
from warehouse.tables import TABLES

CODE_VERSION = "samples-2"
TEMPLATES = Path(__file__).parent / "templates"
PIXELS_PER_TOKEN = 32 * 32
CHARACTERS_PER_TOKEN = 4


class SamplesConfig(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    progress_per_episode: int = Field(default=12, ge=0, description="quota of family c")
    window_frames: int = Field(default=4, ge=1, description="pictures of a family c sample")
    window_step_s: float = Field(default=0.4, gt=0, description="time between them")
    segmentation_per_episode: int = Field(default=1, ge=0, le=1, description="quota of family a")
    segmentation_frames: int = Field(default=16, ge=2, description="pictures of a family a sample, at most")
    seed: int = 0


@dataclass(frozen=True)
class LabelledEpisode:
    """What samples are made of; `progress` is float32 [num_frames]."""

    dataset: str
    episode_index: int
    chunk: int
    split: str
    label_run: str
    camera: str
    fps: float
    task: str | None
    segments: Sequence[Segment]
    progress: np.ndarray
    picture_px: tuple[int, int] = (256, 256)


@cache
def template(name: str) -> str:
    return (TEMPLATES / f"{name}.txt").read_text().strip()


def template_version() -> str:
    """Changes with any template file."""
    files = sorted(TEMPLATES.glob("*.txt"))
    return hashlib.sha256(b"\0".join(f.name.encode() + b"\0" + f.read_bytes() for f in files)).hexdigest()[:16]


def samples_stage(episodes: Sequence[LabelledEpisode], config: SamplesConfig) -> pa.Table:
    """Samples of the labelled episodes of one chunk."""
    rows = [row for e in episodes for make in (_segmentation, _progress) for row in make(e, config)]
    return TABLES["samples"].rows(rows)


def _generator(e: LabelledEpisode, family: str, seed: int) -> np.random.Generator:
    key = f"{seed}\0{e.dataset}\0{e.episode_index}\0{family}"
    return np.random.default_rng(int.from_bytes(hashlib.sha256(key.encode()).digest()[:16], "big"))


def _row(e: LabelledEpisode, family: str, number: int, frames: list[int], question: str, answer: str) -> dict:
    key = f"{e.dataset}\0{e.episode_index}\0{e.label_run}\0{family}\0{number}"
    pixels = e.picture_px[0] * e.picture_px[1]
    return {
        "sample_id": hashlib.sha256(key.encode()).hexdigest()[:16],
        "family": family,
        "dataset": e.dataset,
        "episode_index": e.episode_index,
        "chunk": e.chunk,
        "split": e.split,
        "label_run": e.label_run,
        "camera": e.camera,
        "frames": frames,
        "question": question,
        "answer": answer,
        "num_tokens": len(frames) * -(-pixels // PIXELS_PER_TOKEN)
        + -(-(len(question) + len(answer)) // CHARACTERS_PER_TOKEN),
    }


def _task(e: LabelledEpisode) -> str:
    return (e.task or "(not stated)").replace("<image>", "image")  # the marks stand for pictures


def _progress(e: LabelledEpisode, config: SamplesConfig) -> list[dict]:
    """Family c: the first and the last frame, and one moment drawn from each of equal parts of the run."""
    n, quota = len(e.progress), config.progress_per_episode
    rng = _generator(e, "procvqa_c", config.seed)
    inner = max(0, quota - 2)
    drawn = (np.arange(inner) + rng.random(inner)) / max(1, inner) * n
    moments = [*[0, n - 1][:quota], *drawn]
    rows = []
    for number, now in enumerate(sorted({min(n - 1, int(m)) for m in moments})):
        frames = window(now, e.fps, config)
        question = template("procvqa_c").format(frames="\n".join(["<image>"] * len(frames)), task=_task(e))
        row = _row(e, "procvqa_c", number, frames, question, progress_answer(e, now))
        rows.append(row | {"progress": float(e.progress[now])})
    return rows


def window(now: int, fps: float, config: SamplesConfig) -> list[int]:
    """Frames up to `now`, window_step_s apart, closer together near the start of a run; no frame is shown twice.

    The number of pictures must not tell how long the run has lasted, or a model learns to count them instead of looking
    (it did): so it is the same everywhere but on the first window_frames - 1 frames.
    """
    before = config.window_frames - 1
    step = min(config.window_step_s * fps, now / max(1, before))
    return sorted({now - round(k * step) for k in range(config.window_frames)})


def remaining_steps(segments: Sequence[Segment], now: int) -> list[str]:
    """Names of the steps that are not over after frame `now`, in order, repeats kept."""
    return [s.name for s in segments if s.kind == STEP and s.end_frame - 1 > now]


def progress_answer(e: LabelledEpisode, now: int) -> str:
    left = remaining_steps(e.segments, now)
    share = 100.0 * float(e.progress[now])
    tag = f"<progress>{share:.2f}%</progress>"
    if not left:
        return f"No action remains.\n{tag}" if share >= 100 else f"The robot does not go on.\n{tag}"
    return "\n".join(["Remaining actions:", *(f"{k}. {name}" for k, name in enumerate(left, 1)), tag])


def _segmentation(e: LabelledEpisode, config: SamplesConfig) -> list[dict]:
    """Family a: the whole run in a few pictures, and its steps as spans of picture numbers."""
    if not config.segmentation_per_episode:
        return []
    n = len(e.progress)
    rng = _generator(e, "procvqa_a", config.seed)
    count = min(n, int(rng.integers(max(2, config.segmentation_frames // 2), config.segmentation_frames + 1)))
    frames = sorted({round(x) for x in np.linspace(0, n - 1, count)})
    spans = []
    for s in e.segments:
        inside = [i for i, f in enumerate(frames) if s.start_frame <= f < s.end_frame]
        if s.kind == STEP and inside:
            spans.append({"action_description": s.name, "start_frame": inside[0], "end_frame": inside[-1]})
    if not spans:
        return []
    marks = "\n".join(f"{i}: <image>" for i in range(len(frames)))
    question = template("procvqa_a").format(frames=marks, task=_task(e), num_frames=len(frames))
    return [_row(e, "procvqa_a", 0, frames, question, json.dumps(spans))]
