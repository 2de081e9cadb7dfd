"""Draw the pictures of the README and of pages in docs after `make demo`: `python docs/make_figures.py`.

usage: make_figures.py [--workspace ./workspace] [--dataset sim_long --episode 15]
"""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from annotate.config import ProgressConfig
from annotate.progress import budgets
from core.domain.label import IDLE
from core.figures import COLOURS, new_figure, render, shorten
from core.paths import Workspace
from eval.annotators.truth import load_truth
from pipeline.pictures import draw_segments, labelled_episode
from warehouse.lake import Lake
from warehouse.lake.stored import labels_of

if TYPE_CHECKING:
    from matplotlib.figure import Figure

ROOT = Path(__file__).resolve().parents[1]
TRUTH = ROOT / "samples" / "truth"
IMAGES = ROOT / "docs" / "images"
MAX_BYTES = 300_000
SHOWN = (("sim_long", 3),)  # of docs/truth.md: a thing lost and taken up again


def draw(lake: Lake, dataset: str, episode: int, name: str, max_bytes: int) -> None:
    known = load_truth(TRUTH, dataset).get(episode, {}).get("progress")
    (IMAGES / f"{name}.png").write_bytes(
        render(labelled_episode(lake, dataset, episode, truth=known), max_bytes)
    )


def concepts(lake: Lake, dataset: str, episode: int) -> "Figure":
    """From segments to a label on one episode: budgets of the planned steps, what is seen to move, and the curve."""
    facts = lake.dicts(
        "SELECT * FROM episodes WHERE dataset = ? AND episode_index = ?", [dataset, episode]
    )[0]
    fps, n = facts["fps"], facts["num_frames"]
    stored = labels_of(lake.con, dataset, episodes=[episode])[episode]
    segments, num_planned = stored.segments, stored.num_planned
    this = "WHERE dataset = ? AND episode_index = ? ORDER BY frame_index"
    columns = [dataset, episode, facts["cameras"][0]]
    change = lake.arrow(
        f"SELECT visual_change FROM frames {this.replace('ORDER', 'AND camera = ? ORDER')}", columns
    )
    label = lake.arrow(f"SELECT progress FROM active_progress {this}", columns[:2])
    steps = {s.step: s for s in segments if s.step is not None and s.completed}
    planned = [steps[k].name if k in steps else f"step {k + 1}" for k in range(num_planned)]
    lengths = [float(len(steps[k])) if k in steps else None for k in range(num_planned)]
    share = budgets(lengths)
    time_s = np.arange(n) / fps
    figure, axes = new_figure(8.0, 6.0, 4, 1, height_ratios=[0.35, 1.1, 1.1, 1.9])
    draw_segments(axes[0, 0], segments, 0, 0.8, fps)
    for s in segments:
        middle = (s.start_frame + s.end_frame) / 2 / fps
        axes[0, 0].text(
            middle,
            0,
            shorten(s.name, max(3, int(110 * len(s) / n))),
            ha="center",
            va="center",
            fontsize=7,
        )
    axes[0, 0].set(xlim=(0, n / fps), yticks=[], xticks=[])
    axes[0, 0].set_title("1. Segments: who does what when", fontsize=9, loc="left")
    total = sum(x for x in lengths if x)
    at = np.arange(len(planned))
    axes[1, 0].bar(
        at - 0.2,
        [(x or 0) / total for x in lengths],
        0.4,
        color=COLOURS[5],
        label="share of the time",
    )
    axes[1, 0].bar(at + 0.2, share, 0.4, color=COLOURS[0], label="budget")
    axes[1, 0].set_xticks(at, [shorten(name, 28) for name in planned], fontsize=7)
    axes[1, 0].tick_params(axis="y", labelsize=7)
    axes[1, 0].set_ylim(0, 1.5 * max(share))
    axes[1, 0].legend(fontsize=7, ncols=2, loc="upper left")
    axes[1, 0].set_title(
        "2. Budgets: what each planned step is worth; all together 1", fontsize=9, loc="left"
    )
    floor = ProgressConfig().noise_floor_per_s / fps
    axes[2, 0].fill_between(time_s, change["visual_change"], color=COLOURS[2], lw=0)
    axes[2, 0].axhline(floor, color="black", lw=0.8, ls="--", label="noise of a still picture")
    axes[2, 0].set(xlim=(0, n / fps), xticks=[])
    axes[2, 0].tick_params(axis="y", labelsize=7)
    axes[2, 0].legend(fontsize=7)
    axes[2, 0].set_title(
        "3. Visual change from frame to frame: below the line nothing is earned",
        fontsize=9,
        loc="left",
    )
    axes[3, 0].plot(time_s, label["progress"], color=COLOURS[0], lw=2)
    for level in np.cumsum(share)[:-1]:
        axes[3, 0].axhline(level, color=COLOURS[0], lw=0.6, ls=":")
    for s in (s for s in segments if s.kind == IDLE):
        axes[3, 0].axvspan(s.start_frame / fps, s.end_frame / fps, color="grey", alpha=0.2, lw=0)
    axes[3, 0].set(xlim=(0, n / fps), ylim=(-0.03, 1.03), xlabel="seconds")
    axes[3, 0].set_title(
        "4. Progress: each step spends its budget; grey: the arm stands still",
        fontsize=9,
        loc="left",
    )
    return figure


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--workspace", type=Path, default=ROOT / "workspace")
    parser.add_argument("--dataset", default="sim_long")
    parser.add_argument("--episode", type=int, default=15)
    asked = parser.parse_args()
    IMAGES.mkdir(exist_ok=True)
    lake = Lake(Workspace(asked.workspace.resolve()), read_only=True)
    draw(lake, asked.dataset, asked.episode, "labelled_episode", MAX_BYTES)
    (IMAGES / "concepts.png").write_bytes(
        render(concepts(lake, asked.dataset, asked.episode), MAX_BYTES, drawing=True)
    )
    for dataset, episode in SHOWN:
        draw(lake, dataset, episode, f"truth_{dataset}_{episode:02d}", MAX_BYTES // 3)


if __name__ == "__main__":
    main()
