"""The reward server under load on loopback: frames a second and waiting times of many live sessions at once.

    python -m benchmarks.reward_server [--model FOLDER] [--sessions 64] [--frames 20]

The server is `proccorpus serve`. Each session sends a frame at a time, and is compared with what the core says of the
same pictures. Without --model, a tiny random one. It fails where a reward differs by more than its tolerance, or a
frame gets no number. Clients that misbehave: tests/eval/server/test_app.py.
"""

import tempfile
import time
from argparse import Namespace
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from benchmarks.harness import Figure, expect, measure, serving
from eval.reward.open import open_checkpoint
from eval.reward.scorer import TOLERANCE, Scorer
from eval.server.client import RewardClient
from tests.kits.reward_server_kit import TASK, offline

FPS = 4.0
PX = 128


@dataclass(frozen=True)
class Load:
    """Seconds of each append, and how far rewards were from the core's."""

    latency_s: np.ndarray
    wall_s: float
    difference: float
    failed: int


def figures(args: Namespace) -> Iterator[Figure]:
    with tempfile.TemporaryDirectory() as folder:
        model = args.model or tiny_model(Path(folder) / "tiny")
        runs = [pictures(args.frames, seed) for seed in range(args.sessions)]
        scorer = open_checkpoint(model)
        core_rewards = [core(scorer, run) for run in runs]
        words = ("serve", "--model", str(model), "--no-token", "--port", "0")
        with serving("-m", "proccorpus", *words) as (line, _):
            result = load(line.removeprefix("listening on "), runs, core_rewards)
    expect(result.failed, 0, "frames without a number")
    off = result.difference
    expect(off <= TOLERANCE, True, f"a difference of {off} is allowed")
    p50, p99 = 1000 * np.quantile(result.latency_s, (0.5, 0.99))
    note = (
        f"{args.sessions} sessions x {args.frames} frames of {PX} px; largest difference {off:.1e}"
    )
    yield Figure("live", len(result.latency_s) / result.wall_s, unit="frames/s", note=note)
    yield Figure("waiting, median", p50, unit="ms")
    yield Figure("waiting, 99th percentile", p99, unit="ms")


def tiny_model(folder: Path) -> Path:
    from training.backbones import make_backbone, make_processor, make_tokenizer
    from training.model import ProgressModel, make_head, save_model
    from training.recipe import HeadConfig, TinyConfig

    config = TinyConfig(
        max_px=64, vocabulary=400, hidden=64, layers=2, vision_hidden=64, vision_layers=2
    )
    tokenizer = make_tokenizer([TASK], config.vocabulary)
    model = ProgressModel(
        make_backbone(tokenizer, config, 0), make_head(HeadConfig(), config.hidden)
    )
    window = {"profile": "balanced", "window_frames": 8, "window_step_s": 0.5, "picture_max_px": PX}
    save_model(
        model,
        make_processor(tokenizer, config),
        folder,
        {"max_px": 64, "head": {}, "window": window},
    )
    return folder


# Sessions


def pictures(count: int, seed: int) -> list[np.ndarray]:
    """Coarse noise: distinct, and small as PNG."""
    rng = np.random.default_rng(seed)
    return [
        np.kron(rng.integers(0, 255, (8, 8, 3), np.uint8), np.ones((PX // 8, PX // 8, 1), np.uint8))
        for _ in range(count)
    ]


def core(scorer: Scorer, run: Sequence[np.ndarray]) -> list[float]:
    rewards = offline(scorer, run, FPS)
    return [float("nan") if r.progress is None else r.progress for r in rewards]


def load(
    url: str, runs: Sequence[Sequence[np.ndarray]], core_rewards: Sequence[Sequence[float]]
) -> Load:
    latency: list[float] = []

    def live(run: Sequence[np.ndarray]) -> list[float]:
        rewards = []
        with RewardClient(url) as client, client.session(TASK, fps=FPS) as session:
            for rgb in run:
                start_s = time.perf_counter()
                row = session.append(rgb)
                latency.append(time.perf_counter() - start_s)
                rewards.append(float("nan") if row.progress is None else row.progress)
        return rewards

    start_s = time.perf_counter()
    with ThreadPoolExecutor(len(runs)) as pool:
        rewards = np.array(list(pool.map(live, runs)))
    wall_s = time.perf_counter() - start_s
    return Load(
        np.array(latency),
        wall_s,
        float(np.nanmax(np.abs(rewards - core_rewards))),
        int(np.isnan(rewards).sum()),
    )


if __name__ == "__main__":
    measure(__doc__, figures, model=None, sessions=64, frames=20)
