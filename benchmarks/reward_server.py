"""The reward server under load on loopback: frames a second and waiting times of many live sessions at once.

    .venv/bin/python -m benchmarks.reward_server [--model FOLDER] [--sessions 64] [--frames 20]

A server in a process of its own. Each session sends a frame at a time, and is compared with what the core says of the
same pictures. Without --model, a tiny random one. It fails where a reward differs from the core's by more than its
tolerance, or a frame gets no number. How it stands clients that misbehave is tests/eval/server/test_app.py's.
"""

import argparse
import sys
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from benchmarks.harness import arguments, machine, serving
from core.web import listen, serve
from eval.reward.open import open_checkpoint
from eval.reward.scorer import TOLERANCE, Scorer
from eval.server.app import make_app
from eval.server.client import RewardClient
from eval.server.limits import ServerLimits

TASK = "Open the green drawer."
FPS = 4.0
PX = 128


@dataclass(frozen=True)
class Load:
    """Seconds of each append, and how far rewards were from the core's."""

    latency_s: np.ndarray
    wall_s: float
    difference: float
    failed: int


def main() -> int:
    parser = arguments(__doc__)
    parser.add_argument("--model", type=Path)
    parser.add_argument("--sessions", type=int, default=64)
    parser.add_argument("--frames", type=int, default=20)
    parser.add_argument("--serve", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.serve:
        return serve_model(args.model)
    with tempfile.TemporaryDirectory() as folder:
        model = args.model or tiny_model(Path(folder) / "tiny")
        runs = [pictures(args.frames, seed) for seed in range(args.sessions)]
        scorer = open_checkpoint(model)
        core_rewards = [core(scorer, run) for run in runs]
        print(f"{args.sessions} sessions x {args.frames} frames of {PX} px; {machine()}")
        with server(model) as (url, _):
            result = load(url, runs, core_rewards)
    p50, p99 = 1000 * np.quantile(result.latency_s, (0.5, 0.99))
    rate = len(result.latency_s) / result.wall_s
    print(
        f"{rate:.1f} frames/s, p50 {p50:.0f} ms, p99 {p99:.0f} ms, max difference {result.difference:.1e}"
    )
    if result.difference > TOLERANCE or result.failed:
        print(
            f"error: a reward differs from the core's, or {result.failed} frames have no number",
            file=sys.stderr,
        )
        return 1
    return 0


# The server


def server(model: Path) -> AbstractContextManager[tuple[str, int]]:
    """Its address and process."""
    return serving("-m", "benchmarks.reward_server", "--serve", "--model", str(model))


def serve_model(model: Path) -> int:
    with listen("127.0.0.1", 0) as listener:
        app = make_app(open_checkpoint(model), ["benchmark"], limits=ServerLimits())
        serve(app, listener, lambda url: print(url, flush=True))
    return 0


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
    stream = scorer.stream(TASK, FPS)
    moments = [m for rgb in run if (m := stream.append({"camera": rgb})) is not None]
    return [r.progress if r.progress is not None else float("nan") for r in scorer.score(moments)]


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
    sys.exit(main())
