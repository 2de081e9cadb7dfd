"""What a second camera is worth to a laptop model where the first one shows nothing, over several seeds.

    .venv/bin/python -m benchmarks.cameras --workspace workspace --release NAME [--seeds 3] [--steps 200]
        [--cameras observation.images.front observation.images.wrist] [--out FILE.json]

The release is of a dataset of which the lake has what both cameras showed (embeddings: when always, the cameras named
under the dataset's cameras). Trains the recipe `laptop` on the numbers of the first camera alone and of both, and asks
each about the runs of the test splits as they are, with the first camera covered (black pictures), and without it:

    mae   |progress - label|, mean over runs; voc: rank correlation with time, of runs that succeeded
"""

import argparse
import json
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from scipy.stats import rankdata

from core.paths import Workspace
from training.laptop.clips import window_places
from training.laptop.model import LaptopModel, load_laptop
from training.laptop.pictures import embed
from training.laptop.reading import SeenWindow, read_windows
from training.laptop.runs import Run, read_runs
from training.recipe import Recipe, load_recipe
from training.train import train
from warehouse.lake import open_lake
from warehouse.releases import get_release

SIDE_PX = 256
SPLITS = ("val", "test_id", "test_ood")
SEEN = ("as_recorded", "covered", "missing")


def shown(run: Run, how: str, width: int, black: np.ndarray) -> Run:
    """The run as it was recorded, or with nothing to be seen by its first camera from the second picture on."""
    if how == "as_recorded":
        return run
    numbers = run.numbers.copy()
    numbers[:, 1:, :width] = black if how == "covered" else np.nan
    return Run(run.dataset, run.episode_index, run.task, numbers, run.frames, run.label, run.step, run.shown)


def progress(model: LaptopModel, run: Run) -> np.ndarray:
    """At each of a run's pictures [k]."""
    moments = run.moments(0)
    windows = [
        SeenWindow(run.task, list(moments[window_places(run.frames, int(now), run.step, model.frames)]), moments[0])
        for now in run.frames
    ]
    return np.array([answer.progress for answer in read_windows(model, windows)])


def measured(model: LaptopModel, runs: Sequence[Run], black: np.ndarray) -> dict[str, float]:
    """Means over the runs, of each way to show them that the model can be asked about."""
    found: dict[str, list[float]] = {}
    ways = SEEN if model.layout.cameras > 1 else SEEN[:2]
    for run in runs:
        known = np.isfinite(run.label)
        for how in ways:
            said = progress(model, shown(run, how, model.layout.picture, black))
            found.setdefault(f"mae {how}", []).append(float(np.abs(said - run.label)[known].mean()))
            if run.label[known][-1] >= 1:
                found.setdefault(f"voc {how}", []).append(_rank(said, run.frames))
    constant = np.median(np.concatenate([r.label[np.isfinite(r.label)] for r in runs]))
    found["mae constant"] = [float(np.nanmean(np.abs(r.label - constant))) for r in runs]
    return {name: float(np.mean(values)) for name, values in found.items()}


def _rank(one: np.ndarray, other: np.ndarray) -> float:
    """Spearman's; 0 where either never changes."""
    if np.ptp(one) == 0 or np.ptp(other) == 0:
        return 0.0
    return float(np.corrcoef(rankdata(one), rankdata(other))[0, 1])


def variant(recipe: Recipe, cameras: Sequence[str], seed: int, steps: int) -> Recipe:
    """The recipe on what some cameras have shown, as the lake has it."""
    assert recipe.model.laptop is not None
    laptop = recipe.model.laptop.model_copy(update={"numbers_from": "lake", "cameras": tuple(cameras), "views": 1})
    return recipe.model_copy(
        update={
            "name": f"{recipe.name}_cameras{len(cameras)}",
            "model": recipe.model.model_copy(update={"laptop": laptop}),
            "train": recipe.train.model_copy(update={"seed": seed, "steps": steps}),
        }
    )


def summary(runs: Sequence[Mapping[str, float]]) -> dict[str, str]:
    """Mean over the seeds, and the least and most of them."""
    values = {name: [run[name] for run in runs] for name in runs[0]}
    return {name: f"{np.mean(v):.3f} ({min(v):.3f} to {max(v):.3f})" for name, v in values.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workspace", type=Path, default=Path("workspace"))
    parser.add_argument("--release", required=True)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--cameras", nargs=2, default=["observation.images.front", "observation.images.wrist"])
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    lake = open_lake(Workspace(args.workspace))
    release, recipe = get_release(lake, args.release), load_recipe("laptop")
    results: dict[str, list[dict[str, float]]] = {}
    for seed in range(args.seeds):
        for cameras in (args.cameras[:1], args.cameras):
            began = time.process_time()
            run = train(lake, release, variant(recipe, cameras, seed, args.steps))
            model, encoder, _ = load_laptop(run.checkpoint)
            paths = [path for split in SPLITS for path in release.paths(lake.workspace, split)]
            runs = read_runs(lake, release, paths, encoder, model.config, seed)
            black = embed(encoder, [np.zeros((SIDE_PX, SIDE_PX, 3), np.uint8)])[0]
            found = measured(model, runs, black) | {"runs": len(runs), "cpu_s": time.process_time() - began}
            results.setdefault(" and ".join(cameras), []).append(found)
            print(f"seed {seed}, {len(cameras)} cameras: {found}", flush=True)
            if args.out:
                args.out.write_text(json.dumps(results, indent=1) + "\n")
    for name, runs in results.items():
        print(name)
        for metric, text in summary(runs).items():
            print(f"  {metric:18s} {text}")


if __name__ == "__main__":
    main()
