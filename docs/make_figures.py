"""Draw the pictures of the README from a real run: `make demo` first, then `python docs/make_figures.py`.

usage: make_figures.py [--workspace ./workspace] [--dataset sim_long --episode 15]
"""

import argparse
import shutil
from pathlib import Path

from assets.pictures import labelled_episode
from eval.truth import load_truth
from warehouse.figures import render
from warehouse.lake import Lake
from warehouse.workspace import Workspace

ROOT = Path(__file__).resolve().parents[1]
IMAGES = ROOT / "docs" / "images"
MAX_BYTES = 300_000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--workspace", type=Path, default=ROOT / "workspace")
    parser.add_argument("--dataset", default="sim_long")
    parser.add_argument("--episode", type=int, default=15)
    asked = parser.parse_args()
    IMAGES.mkdir(exist_ok=True)
    lake = Lake(Workspace(asked.workspace.resolve()), read_only=True)
    truth = load_truth(ROOT / "samples" / "truth", asked.dataset)
    known = truth.progress[asked.episode] if truth else None
    figure = labelled_episode(lake, asked.dataset, asked.episode, truth=known)
    (IMAGES / "labelled_episode.png").write_bytes(render(figure, MAX_BYTES))
    newest = lake.rows("SELECT eval_run FROM eval_runs WHERE benchmark = 'held-out' ORDER BY created_at DESC")
    for (run,) in newest:
        curves = lake.workspace.root / "evals" / run / "curves.png"
        if curves.exists():
            shutil.copy(curves, IMAGES / "curves.png")
            break


if __name__ == "__main__":
    main()
