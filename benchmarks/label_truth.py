"""How true labels are: of real robots against what people saw, of simulated ones against what the simulator knows.

    python -m benchmarks.label_truth --real [--dataset cr5_banana ...] [--annotator motion] [--workspace W]
    python -m benchmarks.label_truth --sets samples SET2 ... [--workspace W] [--json FILE]
    python -m benchmarks.label_truth [--workspace ./workspace] [--truth samples/truth] [--dataset sim_short sim_long]
    python -m benchmarks.label_truth --workspace W1 W2 --truth T1 T2 --check

`--real` builds each dataset that has a hand-labelled truth (`real_truth`), by the product's own command, in a
workspace that goes afterwards or is W: as it is, and again after what the truth says of outcomes was imported. It
prints one table, real robots first, and writes the figures of every episode to docs/data/real_truth.json. Intervals
are 95 % of a bootstrap over episodes; a set of one episode has none. `--check` exits 1 when a claim does not hold.

`--sets` builds simulated sets (what samples/make_samples.py writes) twice, with and without their column of success,
and writes docs/data/sim_truth.json. `python docs/make_truth_page.py` then makes the tables of docs/truth.md anew.

Else labels of a workspace that is built already are compared (`sim_truth`): `make demo` before; of several workspaces
each dataset is also taken over all of them. The last table is of everything together; `--check` exits 1 when a claim
in it does not hold. It is meant for tasks and seeds that nothing was tuned on (`generate.py --plan eighth`, then
samples/make_samples.py, then `proccorpus build`). Prints Markdown.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from annotate.motion import CODE_VERSION
from benchmarks.real_truth import print_real, real_claims, real_json, real_sets
from benchmarks.sim_truth import METRICS, WAYS, Run, claims, episode_runs, mean_iou, over_tasks, published_bf1
from benchmarks.simulated_sets import QUEUE_SHARE, print_simulated, simulated_rows, simulated_sets
from benchmarks.tables import table, worded, write_json
from benchmarks.trial import SHARED, trial_workspace
from core.paths import ROOT, Workspace
from warehouse.lake import Lake

FIGURES = ROOT / "docs" / "data" / "real_truth.json"
SIM_FIGURES = ROOT / "docs" / "data" / "sim_truth.json"


def report(what: str, runs: Sequence[Run]) -> None:
    """Print the figures by kind of run."""
    for m, metric in enumerate(METRICS):
        print(f"{what}: {metric}\n")
        rows = []
        for kind in sorted({r.kind for r in runs}):
            values = np.array([r.values[m] for r in runs if r.kind == kind])
            if not np.isnan(values).all():
                rows.append([kind, str(len(values)), *(f"{v:.3f}" for v in np.nanmean(values, axis=0))])
        table(["kind of run", "runs", *WAYS], rows)
    print(f"{what}: segments (motion, a uniform split into the planned number of steps)\n")
    scores = {"BF1@5": (published_bf1(0), published_bf1(1)), "IoU": (mean_iou(0), mean_iou(1))}
    rows = [[name, *map(worded, (over_tasks(runs, f) for f in both))] for name, both in scores.items()]
    table(["", "motion", "uniform"], rows)


def claimed(what: str, runs: Sequence[Run]) -> bool:
    """Print the claims; do all of them hold?"""
    found = claims(runs)
    print(f"{what}: intervals over {len({r.task for r in runs})} tasks\n")
    rows = [[text, worded(score), bound, "yes" if ok else "**no**"] for text, score, bound, ok in found]
    table(["", "figure (95 % interval)", "bound", "holds"], rows)
    return all(holds for *_, holds in found)


def compare_built(asked: argparse.Namespace) -> int:
    """Tables of workspaces that are built already; 1 where a claim is checked and does not hold."""
    workspaces, truths = asked.workspace or [ROOT / "workspace"], asked.truth or [ROOT / "samples" / "truth"]
    if len(workspaces) != len(truths):
        sys.exit("give as many --truth as --workspace")
    datasets = asked.dataset or ["sim_short", "sim_long"]
    together: dict[str, list[Run]] = {d: [] for d in datasets}
    every = True
    for workspace, truth in zip(workspaces, truths, strict=True):
        lake = Lake(Workspace(workspace.resolve()), read_only=True)
        for dataset in datasets:
            runs = episode_runs(lake, truth, dataset)
            together[dataset] += runs
            name = dataset if len(workspaces) == 1 else f"{workspace.name} {dataset}"
            report(name, runs)
            every = claimed(name, runs)
    if len(workspaces) > 1:
        for dataset, runs in together.items():
            every = claimed(f"{dataset}, all workspaces", runs)
    if len(datasets) > 1:
        every = claimed("all", [r for runs in together.values() for r in runs])
    return int(asked.check and not every)


def compare_real(asked: argparse.Namespace) -> int:
    """The table of real sets; their figures go to a file. 1 where a claim is checked and does not hold."""
    truth = (asked.truth or [SHARED / "real_truth"])[0]
    datasets = asked.dataset or sorted(folder.name for folder in truth.iterdir() if folder.is_dir())
    with trial_workspace((asked.workspace or [None])[0]) as space:
        sets = list(real_sets(truth, asked.data, datasets, space, asked.annotator))
    print_real(sets)
    write_json(asked.json or FIGURES, real_json(sets))
    return int(asked.check and not all(holds for *_, holds in real_claims(sets)))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    what = parser.add_mutually_exclusive_group()
    what.add_argument("--real", action="store_true", help="datasets with a hand-labelled truth")
    what.add_argument("--sets", nargs="+", type=Path, help="simulated sets, with and without outcomes")
    parser.add_argument("--workspace", nargs="+", type=Path, help="built already; with --real or --sets: keep it there")
    parser.add_argument("--truth", nargs="+", type=Path, help="one a workspace; with --real: the folder of all")
    parser.add_argument("--data", type=Path, default=SHARED / "data", help="with --real: where the datasets lie")
    parser.add_argument("--dataset", nargs="+")
    parser.add_argument("--annotator", help="with --real: who makes the labels; default: the product's choice")
    parser.add_argument("--json", type=Path, help="where the figures of --real or --sets go; default: docs/data")
    parser.add_argument("--check", action="store_true")
    asked = parser.parse_args()
    if asked.real:
        return compare_real(asked)
    if asked.sets:
        rows = simulated_rows(simulated_sets(asked.sets, (asked.workspace or [None])[0]))
        print_simulated(rows)
        data = {"code_version": CODE_VERSION, "queue_share": QUEUE_SHARE, "rows": rows}
        write_json(asked.json or SIM_FIGURES, data)
        return 0
    return compare_built(asked)


if __name__ == "__main__":
    sys.exit(main())
