"""What a laptop model knows of the shipped sample, over several seeds, and what it costs.

    python -m benchmarks.laptop [--workspace workspace] [--release demo] [--truth FOLDER] [--seeds 3]

Trains the recipe `laptop` with each seed on the release, and asks it about the held-out episodes of the split test_id
(start states never seen) and test_ood (another robot, other tasks), as calibration asks. Models go into the workspace,
as those of `proccorpus train` do.

    voc          of clean successes; of all runs: voc_all
    mae          |progress - label|, and of runs that failed or stalled; the clock beside it knows each run's length
    wrong        mean progress under the instructions of the other tasks
"""

import time
from argparse import Namespace
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import scipy  # its parts are imported when they are used

from benchmarks.harness import Figure, measure, write_json
from core.paths import ROOT, Workspace
from core.values import grouped
from eval.benchmarks.held_out import episode_questions
from eval.benchmarks.question import Question
from eval.reward.laptop import LaptopRunner
from eval.runners.checkpoint import BATCH
from eval.runners.methods import best_constant
from eval.runners.prompt import Runner
from eval.within import predict
from training.recipe import load_recipe
from training.train import train
from warehouse.lake import open_lake
from warehouse.releases.release import get_release

STOPPED = {"policy stalled", "policy paused"}
FIGURES = (
    ROOT / "docs" / "data" / "laptop.json"
)  # that README states: python docs/make_stated.py writes them there


def measured(
    runner: Runner, questions: Sequence[Question], tasks: Sequence[str]
) -> dict[str, float]:
    """Means over one split's episodes; `tasks`: those that training knew."""
    figures: dict[str, list[float]] = {}

    def add(name: str, value: float) -> None:
        figures.setdefault(name, []).append(value)

    constant = best_constant(np.array([q.progress for q in questions], np.float64))
    episodes = grouped((q.unit, q) for q in questions).values()
    for e in episodes:
        progress = predict(runner, e).values
        label = np.array([q.progress for q in e], np.float64)
        truth = np.array([q.facts["truth"] for q in e], np.float64)
        elapsed = np.array([(q.frame_index or 0) / max(1, (q.num_frames or 1) - 1) for q in e])
        clean = e[0].success is True and not STOPPED & set(e[0].slices)
        add("voc_all", _rank(progress, np.arange(len(progress))))
        if clean:
            add("voc", _rank(progress, np.arange(len(progress))))
        for name, guess in (
            ("mae", progress),
            ("clock", elapsed),
            ("constant", np.full_like(progress, constant)),
        ):
            add(name, float(np.abs(guess - label).mean()))
            if not clean:
                add(f"{name}_troubled", float(np.abs(guess - label).mean()))
            if not np.isnan(truth).any():
                add(f"{name}_truth", float(np.abs(guess - truth).mean()))
        for task in tasks:
            if task != e[0].goal:  # the same pictures under another instruction
                relabelled = [replace(q, goal=task) for q in e]
                add("wrong", float(np.mean(predict(runner, relabelled).values)))
    return {name: float(np.mean(values)) for name, values in figures.items()} | {
        "episodes": len(episodes)
    }


def _rank(first_values: np.ndarray, second_values: np.ndarray) -> float:
    """Spearman's; 0 where either never changes: who says one number knows no order."""
    if np.ptp(first_values) == 0 or np.ptp(second_values) == 0:
        return 0.0
    first_ranks, second_ranks = map(scipy.stats.rankdata, (first_values, second_values))
    return float(np.corrcoef(first_ranks, second_ranks)[0, 1])


def seeds_of(runs: Sequence[Mapping[str, float]]) -> dict[str, list[float]]:
    """Each figure's values, by seed."""
    values: dict[str, list[float]] = {}
    for name in runs[0]:
        values[name] = [round(float(run[name]), 4) for run in runs]
    return values


def stated(results: Mapping[str, Sequence[Mapping[str, float]]]) -> dict[str, float]:
    """Errors of progress that pages state, means over the seeds."""
    kinds = {
        "labels": ("test_id", "mae"),
        "truth": ("test_id", "mae_truth"),
        "other_robot": ("test_ood", "mae"),
    }
    errors = {}
    for name, (split, column) in kinds.items():
        errors[name] = float(np.mean([run[column] for run in results[split]]))
        errors[f"{name}_clock"] = float(
            np.mean([run[column.replace("mae", "clock")] for run in results[split]])
        )
    return errors


def figures(args: Namespace) -> Iterator[Figure]:
    lake = open_lake(Workspace(args.workspace))
    release = get_release(lake, args.release)
    recipe = load_recipe("laptop")
    by_split = {
        split: episode_questions(lake, release, (split,), args.truth)
        for split in ("test_id", "test_ood")
    }
    tasks = sorted({q.goal for q in by_split["test_id"] if q.goal})
    results: dict[str, list[dict[str, float]]] = {split: [] for split in (*by_split, "cost")}
    for seed in range(args.seeds):
        seeded = recipe.train.model_copy(update={"seed": seed})
        start_s = time.process_time()
        run = train(lake, release, recipe.model_copy(update={"train": seeded}))
        cpu_s = time.process_time() - start_s
        runner = LaptopRunner(run.checkpoint, BATCH)
        results["cost"].append({"train_cpu_s": cpu_s, "train_s": run.seconds})
        for split, questions in by_split.items():
            results[split].append(measured(runner, questions, tasks))
    by_seed = {split: seeds_of(runs) for split, runs in results.items()}
    for split, values_by_name in by_seed.items():
        for name, values in values_by_name.items():
            note = f"{min(values):.3f} to {max(values):.3f}"
            yield Figure(f"{split}: {name}", float(np.mean(values)), note=note)
    write_json(FIGURES, {"mae": stated(results), "seeds": args.seeds, "by_seed": by_seed})


if __name__ == "__main__":
    folders = {"workspace": Path("workspace"), "truth": Path("samples/truth")}
    measure(__doc__, figures, release="demo", seeds=3, **folders)
