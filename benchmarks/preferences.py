"""Which of two runs is further, or better: models that are trained already, by their progress and by their heads.

    .venv/bin/python -m benchmarks.preferences --workspace workspace [--release demo] [--model RUN]... [--out FILE.json]

Without --model: all that the recipe `laptop` has trained on the release, such as the seeds of benchmarks.laptop. Asked
is about the pairs of `proccorpus eval`, on the splits test_id and val (start states that training never showed; val
chooses no weight) and test_ood (another robot, other tasks). The clock, which knows each run's length, stands beside.
"""

import argparse
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from core.paths import Workspace
from eval.held_out.episodes import HeldOut, held_out
from eval.held_out.evaluate import label_of, predict, preference_pairs
from eval.metrics.preferences import preference_measures
from eval.metrics.score import ratio
from eval.runners.start import RunnerConfig, local_runner
from training.finished import trained
from warehouse.lake import Lake, open_lake
from warehouse.releases import Release, get_release

SPLITS = ("test_id", "val", "test_ood")
RUNS = "SELECT training_run FROM training_runs WHERE recipe = 'laptop' AND release = ? ORDER BY created_at"


def accuracies(
    episodes: Sequence[HeldOut], scores_by_name: Mapping[str, Mapping[tuple[str, int], np.ndarray]]
) -> dict[str, float]:
    """By <name>_<kind>."""
    pairs, keys = preference_pairs(episodes, label_of), [(e.dataset, e.episode_index) for e in episodes]
    found = {}
    for name, scores in scores_by_name.items():
        measures = preference_measures(pairs, scores, keys, name)
        found |= {metric: float(ratio(measure.parts.sum(0))) for metric, measure in measures.items()}
    return found


def of_model(lake: Lake, run: str, by_split: Mapping[str, Sequence[HeldOut]]) -> dict[str, dict[str, float]]:
    """A trained run's accuracies by split."""
    checkpoint = trained(lake, run)
    if checkpoint is None:
        raise SystemExit(f"{run} is no trained model of this workspace")
    runner = local_runner(RunnerConfig(run), checkpoint)
    results = {}
    for split, episodes in by_split.items():
        predicted = predict(runner, episodes)
        scores = {"progress": predicted.progress, "clock": {(e.dataset, e.episode_index): e.elapsed for e in episodes}}
        if predicted.preference is not None:
            scores["head"] = predicted.preference
        results[split] = accuracies(episodes, scores)
    return results


def models(lake: Lake, release: Release) -> list[str]:
    return [run for (run,) in lake.rows(RUNS, [release.name])]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workspace", type=Path, default=Path("workspace"))
    parser.add_argument("--release", default="demo")
    parser.add_argument("--model", action="append")
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    lake = open_lake(Workspace(args.workspace))
    release = get_release(lake, args.release)
    by_split = {split: held_out(lake, release, (split,)) for split in SPLITS}
    runs = args.model or models(lake, release)
    if not runs:
        raise SystemExit(f"no model of the recipe laptop was trained on {args.release}: proccorpus train")
    results = {run: of_model(lake, run, by_split) for run in runs}
    for split, episodes in by_split.items():
        print(f"{split}: {dict(Counter(pair.why for pair in preference_pairs(episodes, label_of)))}")
        for metric in dict.fromkeys(m for of_run in results.values() for m in of_run[split]):
            values = [of_run[split][metric] for of_run in results.values() if metric in of_run[split]]
            spread = f"{np.mean(values):.3f} ({min(values):.3f} to {max(values):.3f})"
            print(f"  {metric:20s} {spread}, {len(values)} models")
    if args.out:
        args.out.write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()
