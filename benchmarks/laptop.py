"""What a laptop model knows of the shipped sample, over several seeds, and what it costs.

    .venv/bin/python -m benchmarks.laptop --workspace workspace [--release demo] [--seeds 3] [--without-negatives]
        [--beside FOLDER] [--out FILE.json]

Trains the recipe `laptop` with each seed on the release, and asks it about the held-out episodes of the split test_id
(start states never seen) and test_ood (another robot, other tasks), as calibration asks. Models go into the workspace,
as those of `proccorpus train` do. `--beside`: a checkpoint of any kind with a head, asked the same.

    voc          of clean successes; of all runs: voc_all
    mae          |progress - label|, and of runs that failed or stalled; the clock beside it knows each run's length
    success_auc  of runs: the highest `done` of the last three moments against the outcome
    rewound      rank correlation of progress and label over runs shown forward, then back
    wrong        mean progress under the instructions of the other tasks
"""

import argparse
import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from scipy.stats import rankdata

from core.paths import Workspace
from eval.held_out.baselines import best_constant
from eval.held_out.episodes import HeldOut, held_out
from eval.reward.laptop import LaptopScorer, open_laptop
from eval.reward.model import ModelScorer, open_model
from eval.reward.scorer import asked_of
from training.negatives.config import NegativesConfig
from training.pictures import Item
from training.recipe import Recipe, load_recipe
from training.train import train
from warehouse.lake import open_lake
from warehouse.releases import get_release

MAX_PX = 256
STOPPED = ("stalled", "paused")


def measured(scorer: LaptopScorer | ModelScorer, episodes: Sequence[HeldOut], tasks: Sequence[str]) -> dict[str, float]:
    """Means over the episodes of one split; `tasks`: those that training knew."""
    found: dict[str, list[float]] = {}
    done, reached = [], []

    def add(name: str, value: float) -> None:
        found.setdefault(name, []).append(value)

    constant = best_constant(np.concatenate([e.label for e in episodes]))
    for e in episodes:
        items = e.items(MAX_PX)
        rewards = scorer.ask(asked_of(items))
        progress = np.array([r.progress for r in rewards], np.float64)
        clean = e.success is True and e.policy not in STOPPED
        add("voc_all", _rank(progress, np.arange(len(progress))))
        if clean:
            add("voc", _rank(progress, np.arange(len(progress))))
        for name, guess in (("mae", progress), ("clock", e.elapsed), ("constant", np.full_like(progress, constant))):
            add(name, float(np.abs(guess - e.label).mean()))
            if not clean:
                add(f"{name}_troubled", float(np.abs(guess - e.label).mean()))
            if e.truth is not None:
                add(f"{name}_truth", float(np.abs(guess - e.truth).mean()))
        add("rewound", _rewound(scorer, items, progress, e.label))
        for task in tasks:
            if task != e.task:
                add("wrong", float(np.mean(_progress(scorer, [_told(i, task) for i in items]))))
        if e.success is not None:
            done.append(max(r.done or 0.0 for r in rewards[-3:]))
            reached.append(e.success)
    means = {name: float(np.mean(values)) for name, values in found.items()}
    return means | {"success_auc": _auc(np.array(done), np.array(reached)), "episodes": len(episodes)}


def _rewound(
    scorer: LaptopScorer | ModelScorer, items: Sequence[Item], progress: np.ndarray, label: np.ndarray
) -> float:
    """Over the run forward, and then back: each moment after those that came after it, with its own label."""
    last, back = [i.pictures[-1] for i in items], []
    for k, i in reversed(list(enumerate(items[:-1]))):
        shown = range(k, min(k + len(i.pictures), len(items)))[::-1]
        back.append(replace(i, pictures=tuple(last[j] for j in shown)))
    return _rank(np.r_[progress, _progress(scorer, back)], np.r_[label, label[-2::-1]])


def _progress(scorer: LaptopScorer | ModelScorer, items: Sequence[Item]) -> np.ndarray:
    return np.array([r.progress for r in scorer.ask(asked_of(items))], np.float64)


def _told(item: Item, task: str) -> Item:
    """The same pictures under another instruction, in the question's words too."""
    assert item.task is not None
    assert item.task.rstrip(".") in item.question
    return replace(item, question=item.question.replace(item.task.rstrip("."), task.rstrip(".")), task=task)


def _rank(one: np.ndarray, other: np.ndarray) -> float:
    """Spearman's; 0 where either never changes: who says one number knows no order."""
    if np.ptp(one) == 0 or np.ptp(other) == 0:
        return 0.0
    return float(np.corrcoef(rankdata(one), rankdata(other))[0, 1])


def _auc(score: np.ndarray, positive: np.ndarray) -> float:
    """NaN where all are of one kind."""
    n, m = int(positive.sum()), int((~positive).sum())
    if not n or not m:
        return float("nan")
    return float((rankdata(score)[positive].sum() - n * (n + 1) / 2) / (n * m))


def latency_ms(scorer: LaptopScorer, task: str, side_px: int = 256, frames: int = 60) -> float:
    """CPU time of this process for one new frame of a live stream: decoded already, encoder and step included."""
    rng = np.random.default_rng(0)
    stream = scorer.stream(task, 20.0)
    pictures = [rng.integers(0, 255, (side_px, side_px, 3), np.uint8) for _ in range(frames)]
    began = 0.0
    for k, rgb in enumerate(pictures):
        # What comes first pays for the compiler
        if k == frames // 3:
            began = time.process_time()
        moment = stream.append({"camera": rgb})
        assert moment is not None
        scorer.score([moment])
    return 1000 * (time.process_time() - began) / (frames - frames // 3)


def with_seed(recipe: Recipe, seed: int, negatives: bool) -> Recipe:
    data = recipe.data if negatives else recipe.data.model_copy(update={"negatives": NegativesConfig()})
    name = recipe.name if negatives else f"{recipe.name}_without"
    return recipe.model_copy(
        update={"name": name, "data": data, "train": recipe.train.model_copy(update={"seed": seed})}
    )


def summary(runs: Sequence[Mapping[str, float]]) -> dict[str, str]:
    """Mean over the seeds, and the worst and best of them."""
    rows = {}
    for name in runs[0]:
        values = [run[name] for run in runs]
        rows[name] = f"{np.mean(values):.3f} ({min(values):.3f} to {max(values):.3f})"
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workspace", type=Path, default=Path("workspace"))
    parser.add_argument("--release", default="demo")
    parser.add_argument("--truth", type=Path, default=Path("samples/truth"))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--without-negatives", action="store_true", help="all rates 0: what negatives are good for")
    parser.add_argument("--beside", type=Path, help="folder of a checkpoint of any kind with a head")
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    lake = open_lake(Workspace(args.workspace))
    release, recipe = get_release(lake, args.release), load_recipe("laptop")
    by_split = {split: held_out(lake, release, (split,), args.truth) for split in ("test_id", "test_ood")}
    tasks = sorted({e.task for e in by_split["test_id"] if e.task})
    results: dict[str, list[dict[str, float]]] = {split: [] for split in by_split}
    costs: list[dict[str, Any]] = []
    for seed in range(args.seeds):
        began = time.process_time()
        run = train(lake, release, with_seed(recipe, seed, not args.without_negatives))
        cpu_s, scorer = time.process_time() - began, open_laptop(run.checkpoint)
        cost = {"train_cpu_s": cpu_s, "train_s": run.seconds, "frame_ms": latency_ms(scorer, tasks[0])}
        costs.append(cost)
        for split, episodes in by_split.items():
            results[split].append(measured(scorer, episodes, tasks))
        print(f"seed {seed}: {cost} {results['test_id'][-1]}", flush=True)
    beside = {}
    if args.beside:
        other = open_model(args.beside)
        beside = {split: measured(other, episodes, tasks) for split, episodes in by_split.items()}
        print(f"{args.beside.name}: {beside}", flush=True)
    table = {split: summary(runs) for split, runs in results.items()} | {"cost": summary(costs)}
    for split, rows in table.items():
        print(split)
        for name, text in rows.items():
            print(f"  {name:16s} {text}")
    if args.out:
        args.out.write_text(
            json.dumps({"results": results, "beside": beside, "costs": costs, "summary": table}, indent=1) + "\n"
        )


if __name__ == "__main__":
    main()
