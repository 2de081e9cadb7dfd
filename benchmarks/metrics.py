"""How long metrics take: every measure of progress with its intervals on a million answers, and pairs one by one.

    .venv/bin/python -m benchmarks.metrics [--answers 1000000] [--episode 150] [--pairs 20000]

Prints seconds of CPU for all measures with their bootstrap (1000 resamples), for Kendall's tau over one episode of
`--pairs` answers as published, O(n^2), and as it is done here; all ways have to give the same.
"""

import argparse
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from eval.metrics import order, published
from eval.metrics.runs import Runs, runs_of
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


def all_pairs(predicted: list[float], target: list[float]) -> float:
    """tau-a as ProcVLM's evaluation goes about it: a Python loop over all pairs."""
    n, total = len(target), 0
    for i in range(n):
        for j in range(i + 1, n):
            product = (predicted[i] - predicted[j]) * (target[i] - target[j])
            total += 1 if product > 0 else -1 if product < 0 else 0
    return total / (n * (n - 1) / 2)


def timed(function: Callable[[], Any]) -> tuple[float, float, Any]:
    """Seconds of CPU, seconds on the clock, and what the function returns."""
    cpu, wall = time.process_time(), time.perf_counter()
    found = function()
    return time.process_time() - cpu, time.perf_counter() - wall, found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--answers", type=int, default=1_000_000)
    parser.add_argument("--episode", type=int, default=150, help="answers of an episode")
    parser.add_argument("--pairs", type=int, default=20_000)
    args = parser.parse_args()
    runs, elapsed = answers(args.answers, args.episode)
    cpu, wall, measures = timed(lambda: progress_measures(runs, elapsed))
    more_cpu, more_wall, found = timed(lambda: scores(measures))
    print(f"{len(runs.target)} answers in {len(runs)} episodes, {len(measures)} measures")
    print(f"  measures {cpu:.2f} s of CPU ({wall:.2f} s), intervals {more_cpu:.2f} s ({more_wall:.2f} s)")
    print("  " + ", ".join(f"{name} {s.value:.3f}" for name, s in found.items()))
    rng = np.random.default_rng(1)
    target = np.linspace(0, 1, args.pairs)
    predicted = np.clip(target + 0.15 * rng.normal(size=args.pairs), 0, 1).round(2)
    slowest, _, plain = timed(lambda: all_pairs(predicted.tolist(), target.tolist()))
    slow, _, theirs = timed(lambda: published.kendall(predicted, target))
    quick, _, (_, ours) = timed(lambda: order.kendall(runs_of([(predicted, target)])))
    print(f"tau-a of one episode of {args.pairs} answers, seconds of CPU: a Python loop over all pairs {slowest:.2f}")
    print(f"  numpy over all pairs {slow:.2f}, by scipy {quick:.3f}: {slowest / quick:.0f} times as quick as the loop")
    if max(abs(plain - ours[0]), abs(theirs - ours[0])) > 1e-9:
        sys.exit(f"they differ: {plain}, {theirs} and {ours[0]}")


if __name__ == "__main__":
    main()
