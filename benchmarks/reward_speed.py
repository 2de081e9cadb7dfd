"""Two reward models behind the same server, one after the other: frames a second, CPU a frame, and their ratio.

    .venv/bin/python -m benchmarks.reward_speed MODEL OTHER [--sessions 16] [--frames 20] [--video FILE]

MODEL and OTHER are folders of checkpoints. Live runs send a frame at a time; whole runs send all frames in one request.
The server is a process of its own, and its CPU time that of all its threads. With --video, each model scores that file
in this process, without the server: seconds to the first number and to the last, the model loaded before.
"""

import time
from pathlib import Path

from benchmarks.harness import arguments, cpu_s, machine
from benchmarks.reward_server import FPS, TASK, core, load, pictures, server
from eval.reward.open import open_checkpoint
from eval.reward.video import open_clip, score_clip
from eval.server.client import RewardClient

VIDEO_FPS = 4.0


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("models", type=Path, nargs=2, metavar="MODEL")
    parser.add_argument("--sessions", type=int, default=16)
    parser.add_argument("--frames", type=int, default=20)
    parser.add_argument("--video", type=Path)
    args = parser.parse_args()
    print(machine())
    rates = [measured(model, args.sessions, args.frames) for model in args.models]
    for kind in rates[0]:
        first_rate = rates[0][kind]
        second_rate = rates[1][kind]
        print(
            f"{kind}: {first_rate:.3g} and {second_rate:.3g}, ratio {first_rate / second_rate:.2f}"
        )
    if args.video:
        for model in args.models:
            first_s, all_s, rows = video_seconds(model, args.video)
            print(
                f"{model.name}: {args.video.name}, {rows} moments: first after {first_s:.2f} s, all in {all_s:.2f} s"
            )


def measured(model: Path, sessions: int, frames: int) -> dict[str, float]:
    """Frames a second, live and of whole runs, and how many of each a second of the server's CPU scores."""
    runs = [pictures(frames, seed) for seed in range(sessions)]
    scorer = open_checkpoint(model)
    core_rewards = [core(scorer, run) for run in runs]
    with server(model) as (url, pid):
        start_cpu_s = cpu_s(pid)
        live = load(url, runs, core_rewards)
        between = cpu_s(pid)
        start_s = time.perf_counter()
        with RewardClient(url) as client:
            for run in runs:
                client.reward_frames(run, TASK, FPS)
        whole_s = time.perf_counter() - start_s
        end_cpu_s = cpu_s(pid)
    count = sessions * frames
    return {
        "live, frames/s": count / live.wall_s,
        "live, frames a CPU second": count / (between - start_cpu_s),
        "whole runs, frames/s": count / whole_s,
        "whole runs, frames a CPU second": count / (end_cpu_s - between),
    }


def video_seconds(model: Path, video: Path) -> tuple[float, float, int]:
    """Seconds to the first number and to the last, and how many there were."""
    scorer = open_checkpoint(model)
    clip = open_clip({"camera": video})
    start_s = time.perf_counter()
    first_s = float("nan")
    rows = 0
    for _ in score_clip(scorer, clip, TASK, score_fps=min(VIDEO_FPS, clip.fps)):
        first_s = first_s if rows else time.perf_counter() - start_s
        rows += 1
    return first_s, time.perf_counter() - start_s, rows


if __name__ == "__main__":
    main()
