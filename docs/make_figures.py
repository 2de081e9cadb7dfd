"""Draw the pictures of README and docs/truth.md from a real run: `make demo`, then `python docs/make_figures.py`.

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
# of docs/truth.md: a good run, a pause, a thing lost and taken up again, one given up; a stop, a miss, a turn not seen
SHOWN = (("sim_long", 8), ("sim_long", 16), ("sim_long", 3), ("sim_long", 4))
SHOWN += (("sim_short", 0), ("sim_short", 57), ("sim_short", 40), ("sim_short", 6))


def draw(lake: Lake, dataset: str, episode: int, name: str, max_bytes: int) -> None:
    truth = load_truth(ROOT / "samples" / "truth", dataset)
    known = truth.progress[episode] if truth else None
    (IMAGES / f"{name}.png").write_bytes(render(labelled_episode(lake, dataset, episode, truth=known), max_bytes))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--workspace", type=Path, default=ROOT / "workspace")
    parser.add_argument("--dataset", default="sim_long")
    parser.add_argument("--episode", type=int, default=15)
    asked = parser.parse_args()
    IMAGES.mkdir(exist_ok=True)
    lake = Lake(Workspace(asked.workspace.resolve()), read_only=True)
    draw(lake, asked.dataset, asked.episode, "labelled_episode", MAX_BYTES)
    for dataset, episode in SHOWN:
        draw(lake, dataset, episode, f"truth_{dataset}_{episode:02d}", MAX_BYTES // 3)
    newest = lake.rows("SELECT eval_run FROM eval_runs WHERE benchmark = 'held-out' ORDER BY created_at DESC")
    for (run,) in newest:
        curves = lake.workspace.root / "evals" / run / "curves.png"
        if curves.exists():
            shutil.copy(curves, IMAGES / "curves.png")
            break


if __name__ == "__main__":
    main()
