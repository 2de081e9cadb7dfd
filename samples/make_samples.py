#!/usr/bin/env python3
"""Make the shipped demo datasets from what the two simulators recorded.

usage: python samples/make_samples.py --sim-short DIR --sim-long DIR --out samples      (or only one of the two)

DIR is an output folder of `benchmarks/sim_short/generate.py` or `benchmarks/sim_long/generate.py`: `episodes.jsonl`,
`frames.parquet` and one mp4 per run and camera. Written below --out, replacing what is there:

    sim_short/, sim_long/    LeRobot v3.0 datasets; only what a data collector would know
    truth/<dataset>/         episodes, segments, frames: what only the simulator knows

Equal inputs give equal bytes. Videos are never re-encoded: packets are copied with shifted times, then every frame
is decoded and compared with its source. All spans are half-open; `README.md` has the schemas.
"""

import argparse
import shutil
import tempfile
from pathlib import Path

from making.dataset import write_dataset
from making.runs import Camera, Recipe, read_runs
from making.truth import write_truth

HAND = ("hand_x", "hand_y", "hand_z")
MOVE = ("move_x", "move_y", "move_z")
SIM_SHORT = Recipe(
    name="sim_short",
    robot_type="sawyer",
    state_names=(*HAND, "gripper_opening"),
    action_names=(*MOVE, "gripper_effort"),
    cameras=(Camera("observation.images.front", "videos", 24),),
    runs_per_data_file=40,
)
SIM_LONG = Recipe(
    name="sim_long",
    robot_type="panda",
    state_names=(*HAND, "hand_qx", "hand_qy", "hand_qz", "hand_qw", "gripper_opening"),
    action_names=(*MOVE, "turn_x", "turn_y", "turn_z", "gripper_command"),
    cameras=(
        Camera("observation.images.front", "videos", 7),
        Camera("observation.images.wrist", "videos_wrist", 5),
    ),
    runs_per_data_file=10,
)


def make(recipe: Recipe, source: Path, out: Path) -> None:
    """Replace `out/<name>` and `out/truth/<name>`, both only after everything has been written and checked."""
    runs = read_runs(source)
    out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".making-", dir=out) as scratch:
        new = Path(scratch)
        write_dataset(recipe, source, runs, new / "dataset")
        write_truth(runs, new / "truth")
        for made, target in (
            (new / "dataset", out / recipe.name),
            (new / "truth", out / "truth" / recipe.name),
        ):
            if target.exists():
                shutil.rmtree(target)
            target.parent.mkdir(exist_ok=True)
            made.rename(target)
    print(
        f"{recipe.name}: {len(runs)} episodes, {sum(run.num_frames for run in runs)} frames, every frame checked"
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--sim-short", type=Path, metavar="DIR")
    parser.add_argument("--sim-long", type=Path, metavar="DIR")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR")
    args = parser.parse_args()
    if not (args.sim_short or args.sim_long):
        parser.error("give --sim-short, --sim-long or both")
    for recipe, source in ((SIM_SHORT, args.sim_short), (SIM_LONG, args.sim_long)):
        if source:
            make(recipe, source, args.out)


if __name__ == "__main__":
    main()
