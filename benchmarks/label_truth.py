"""How true the labels of the shipped samples are: mean absolute progress error by kind of run, beside the clock.

usage: make demo, then python benchmarks/label_truth.py [--workspace ./workspace]
Prints a Markdown table; exits 1 when a frame of an episode has no label.
"""

import argparse
import sys
from pathlib import Path

import numpy as np

sys.path[0] = str(Path(__file__).parents[1])  # not this folder: its ingest.py hides the package

from eval.metrics import mae
from eval.truth import load_truth
from warehouse.lake import Lake
from warehouse.workspace import Workspace

ROOT = Path(__file__).resolve().parents[1]
COLUMNS = ("ours", "clock", "published formula")


def errors(lake: Lake, dataset: str) -> dict[str, list[list[float]]]:
    """Per kind of run, one row of errors (as COLUMNS) per episode. Raises SystemExit on a missing label."""
    truth = load_truth(ROOT / "samples" / "truth", dataset)
    assert truth is not None
    found: dict[str, list[list[float]]] = {}
    for episode, target in sorted(truth.progress.items()):
        label = lake.arrow(
            "SELECT progress, progress_procvlm FROM active_progress WHERE dataset = ? AND episode_index = ? "
            "ORDER BY frame_index",
            [dataset, episode],
        )
        if label.num_rows != len(target):
            sys.exit(f"{dataset} episode {episode}: {label.num_rows} labels for {len(target)} frames")
        clock = np.arange(len(target)) / (len(target) - 1)
        guesses = (label["progress"].to_numpy(), clock, label["progress_procvlm"].to_numpy())
        found.setdefault(truth.policy[episode], []).append([mae(g, target) for g in guesses])
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--workspace", type=Path, default=ROOT / "workspace")
    lake = Lake(Workspace(parser.parse_args().workspace.resolve()), read_only=True)
    print("| dataset | kind of run | episodes | " + " | ".join(COLUMNS) + " |\n" + "|---" * 6 + "|")
    for dataset in ("sim_short", "sim_long"):
        for kind, rows in sorted(errors(lake, dataset).items()):
            means = " | ".join(f"{m:.3f}" for m in np.mean(rows, axis=0))
            print(f"| {dataset} | {kind} | {len(rows)} | {means} |")


if __name__ == "__main__":
    main()
