"""What negatives teach a vision-language model, at equal steps: trained with them and without, over several seeds.

    .venv/bin/python -m benchmarks.negatives --workspace workspace [--release demo] [--recipe tiny_cpu] [--seeds 3]
        [--steps N] [--arms without few with] [--out FILE.json]

Trains the recipe with each seed on the release as it is and with the rates of RATES and FEW, and asks each
about the held-out episodes of the split test_id. Models go into the workspace, as those of `proccorpus train` do.

    mae          |progress - label| of windows as recorded, against labels; voc: their order, of clean successes
    rewound      |progress - label| of windows played backwards; rewound_rank: Spearman's, over runs forward then back
    falls        share of windows that are given less played backwards than as recorded, where the label says so
    wrong_task   mean progress under two other tasks' instructions
    told_apart   share of windows that are given more under the right instruction than under the wrong ones
    stall        |change| of progress when the last picture is shown over and over
"""

import argparse
import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from scipy.stats import rankdata

from core.paths import Workspace
from eval.held_out.episodes import HeldOut, held_out
from eval.reward.model import ModelScorer, open_model
from eval.reward.scorer import asked_of
from training.labels import Labels, read_labels
from training.negatives.config import NegativesConfig
from training.negatives.windows import Instructions, differ
from training.pictures import Item
from training.recipe import Recipe, load_recipe
from training.train import train
from warehouse.lake import open_lake
from warehouse.releases import get_release

RATES = NegativesConfig(rewound=0.15, stood_still=0.05, other_task=0.3, other_speed=0.1)
FEW = NegativesConfig(**{kind: 0.3 * rate for kind, rate in RATES.model_dump().items()})
ARMS = {"without": NegativesConfig(), "few": FEW, "with": RATES}
OTHERS = 2  # wrong instructions of an episode
STOPPED = ("stalled", "paused")


def measured(
    scorer: ModelScorer, episodes: Sequence[HeldOut], labels: Labels, told: Instructions, max_px: int
) -> dict[str, float]:
    """Means over the episodes."""
    found: dict[str, list[float]] = {}
    rng = np.random.default_rng(0)

    def add(name: str, values: float | np.ndarray) -> None:
        found.setdefault(name, []).append(float(np.mean(values)))

    def asked(items: Sequence[Item]) -> np.ndarray:
        return np.array([r.progress for r in scorer.ask(asked_of(items))], np.float64)

    for e in episodes:
        assert e.task is not None
        items, curve = e.items(max_px), labels[e.dataset, e.episode_index].progress
        progress = asked(items)
        add("mae", np.abs(progress - e.label))
        if e.success is True and e.policy not in STOPPED:
            add("voc", _rank(progress, np.arange(len(progress))))
        # A window that shows one picture has no direction
        moving = [k for k, i in enumerate(items) if len(i.pictures) > 1]
        back = asked([replace(items[k], pictures=items[k].pictures[::-1]) for k in moving])
        label = np.array([curve[e.samples[k].row["frames"][0]] for k in moving])
        add("rewound", np.abs(back - label))
        add("rewound_rank", _rank(np.r_[progress, back[::-1]], np.r_[e.label, label[::-1]]))
        falling = label < e.label[moving]
        if falling.any():
            add("falls", (back < progress[moving])[falling])
        still = asked([replace(items[k], pictures=items[k].pictures[-1:] * len(items[k].pictures)) for k in moving])
        add("stall", np.abs(still - progress[moving]))
        others = [t for t in told.distinct if differ(t, e.task)]
        for other in rng.choice(others, OTHERS, replace=False):
            wrong = asked([_told(i, e.task, str(other)) for i in items])
            add("wrong_task", wrong)
            add("told_apart", wrong < progress)
    return {name: float(np.mean(values)) for name, values in found.items()}


def _told(item: Item, task: str, other: str) -> Item:
    return replace(item, question=item.question.replace(task, other))


def _rank(one: np.ndarray, other: np.ndarray) -> float:
    """Spearman's; 0 where either never changes."""
    if np.ptp(one) == 0 or np.ptp(other) == 0:
        return 0.0
    return float(np.corrcoef(rankdata(one), rankdata(other))[0, 1])


def variant(recipe: Recipe, arm: str, seed: int, steps: int | None) -> Recipe:
    """The recipe of one arm; without `steps`, as long as it is."""
    data = recipe.data.model_copy(update={"negatives": ARMS[arm]})
    train = recipe.train.model_copy(update={"seed": seed, "steps": steps or recipe.train.steps})
    return recipe.model_copy(update={"name": f"{recipe.name}_{arm}", "data": data, "train": train})


def summary(runs: Sequence[Mapping[str, float]]) -> dict[str, str]:
    """Mean over the seeds, and the least and most of them."""
    values = {name: [run[name] for run in runs] for name in runs[0]}
    return {name: f"{np.mean(v):.3f} ({min(v):.3f} to {max(v):.3f})" for name, v in values.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workspace", type=Path, default=Path("workspace"))
    parser.add_argument("--release", default="demo")
    parser.add_argument("--recipe", default="tiny_cpu")
    parser.add_argument("--truth", type=Path, default=Path("samples/truth"))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--steps", type=int)
    parser.add_argument("--arms", nargs="+", choices=tuple(ARMS), default=["without", "few"])
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    lake = open_lake(Workspace(args.workspace))
    release, recipe = get_release(lake, args.release), load_recipe(args.recipe)
    episodes = held_out(lake, release, ("test_id",), args.truth)
    labels = read_labels(lake, release, release.paths(lake.workspace, "test_id"))
    told = Instructions(sorted({e.task for e in episodes if e.task}))
    results: dict[str, list[dict[str, float]]] = {arm: [] for arm in args.arms}
    for seed in range(args.seeds):
        for arm in args.arms:
            began = time.process_time()
            run = train(lake, release, variant(recipe, arm, seed, args.steps))
            cost = {"train_cpu_s": time.process_time() - began}
            scored = measured(open_model(run.checkpoint), episodes, labels, told, recipe.model.max_px)
            results[arm].append(scored | cost)
            print(f"seed {seed} {arm}: {results[arm][-1]}", flush=True)
            if args.out:
                args.out.write_text(json.dumps(results, indent=1) + "\n")
    for arm, runs in results.items():
        print(arm)
        for name, text in summary(runs).items():
            print(f"  {name:16s} {text}")


if __name__ == "__main__":
    main()
