"""How long metrics take: every measure of progress with its intervals (1000 resamples) on a million answers.

.venv/bin/python -m benchmarks.metrics [--answers 1000000] [--episode 150]
"""

import argparse
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from eval.metrics.runs import Runs
from eval.metrics.score import scores
from eval.scoring.progress import progress_measures

UNREAD = 0.02  # of the answers


def answers(count: int, length: int) -> tuple[Runs, np.ndarray]:
    """Noisy percentages, as a model writes them, of episodes of equal length; and the time of each, 0..1."""
    rng = np.random.default_rng(0)
    episodes = count // length
    elapsed = np.tile(np.linspace(0, 1, length), episodes)
    target = elapsed ** np.repeat(rng.uniform(0.5, 2, episodes), length)
    predicted = np.clip(target + 0.15 * rng.normal(size=len(target)), 0, 1).round(2)
    predicted[rng.random(len(predicted)) < UNREAD] = np.nan
    return Runs(predicted, target, np.arange(episodes + 1) * length), elapsed


def timed(function: Callable[[], Any]) -> tuple[float, float, Any]:
    """Seconds of CPU, seconds on the clock, and what the function returns."""
    cpu, wall = time.process_time(), time.perf_counter()
    found = function()
    return time.process_time() - cpu, time.perf_counter() - wall, found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--answers", type=int, default=1_000_000)
    parser.add_argument("--episode", type=int, default=150, help="answers of an episode")
    args = parser.parse_args()
    runs, elapsed = answers(args.answers, args.episode)
    cpu, wall, measures = timed(lambda: progress_measures(runs, elapsed))
    more_cpu, more_wall, found = timed(lambda: scores(measures))
    print(f"{len(runs.target)} answers in {len(runs)} episodes, {len(measures)} measures")
    print(f"  measures {cpu:.2f} s of CPU ({wall:.2f} s), intervals {more_cpu:.2f} s ({more_wall:.2f} s)")
    print("  " + ", ".join(f"{name} {s.value:.3f}" for name, s in found.items()))


if __name__ == "__main__":
    main()
