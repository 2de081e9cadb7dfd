#!/bin/sh
# Guess: q01 ... q99 of a LeRobot dataset's statistics are about those of its frames, and 98 % of the states lie in -1
#   ... 1 when normalised by them.
# What happens: They are the mean of the episodes' quantiles, weighted by length. Where episodes differ in place, all
#   three lie where no frame is, and no state lies in -1 ... 1: the largest is 18. recompute_stats() does the same.
# Versions: lerobot[dataset] 0.6.1, torch 2.11.0, torchvision 0.26.0, numpy 2.2.6
# Output on 28 November 2026:
#   q01, q50, q99 of the frames: [-1.1, -0.97, 1.09]
#   q01, q50, q99 of the statistics: [-0.77, -0.66, -0.57]
#   recomputed: [-0.77, -0.66, -0.57]
#   frames in -1 ... 1, normalised: 0.0
#   the largest: 18.0
set -eu
packages="lerobot[dataset]==0.6.1 torch==2.11.0 torchvision==0.26.0 numpy==2.2.6"
python=$("${PYTHON:-python3}" -c "import sys; print(sys.executable)")
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
if command -v uv >/dev/null; then
  uv venv --quiet --python "$python" env
  uv pip install --quiet --python env/bin/python $packages
else
  "$python" -m venv env
  env/bin/python -m pip install --quiet $packages
fi
env/bin/python - <<'END'
import logging
import os
import sys

os.environ |= {"HF_HUB_OFFLINE": "1", "TQDM_DISABLE": "1"}
os.environ["HF_HOME"] = os.path.abspath("home")
logging.disable(logging.CRITICAL)
import datasets
import numpy as np
from lerobot.datasets.dataset_tools import recompute_stats
from lerobot.datasets.lerobot_dataset import LeRobotDataset

datasets.disable_progress_bars()
name = "observation.state"
features = {name: {"dtype": "float32", "shape": (1,), "names": ["base"]}}
dataset = LeRobotDataset.create("robot/runs", fps=10, features=features, root="runs", use_videos=False)
draw = np.random.default_rng(0)
states = []
for place in (-1, -1, -1, -1, -1, 1):
    states += list(place + draw.uniform(-0.1, 0.1, (100, 1)))
    for state in states[-100:]:
        dataset.add_frame({name: state.astype(np.float32), "task": "reach"})
    dataset.save_episode()
dataset.finalize()
dataset = LeRobotDataset("robot/runs", root="runs")


def quantiles(stats):
    return [round(stats[name][key].item(), 2) for key in ("q01", "q50", "q99")]


low, high = (dataset.meta.stats[name][key].item() for key in ("q01", "q99"))
normal = 2 * (np.array(states) - low) / (high - low) - 1
seen = {
    "q01, q50, q99 of the frames": np.quantile(states, [0.01, 0.5, 0.99]).round(2).tolist(),
    "q01, q50, q99 of the statistics": quantiles(dataset.meta.stats),
    "recomputed": quantiles(recompute_stats(dataset).meta.stats),
    "frames in -1 ... 1, normalised": round(float((abs(normal) <= 1).mean()), 3),
    "the largest": round(float(normal.max()), 1),
}
for name, value in seen.items():
    print(f"{name}: {value}")

expected = {
    "q01, q50, q99 of the frames": [-1.1, -0.97, 1.09],
    "q01, q50, q99 of the statistics": [-0.77, -0.66, -0.57],
    "recomputed": [-0.77, -0.66, -0.57],
    "frames in -1 ... 1, normalised": 0.0,
    "the largest": 18.0,
}
if seen != expected:
    sys.exit(f"CHANGED: expected {expected}")
print("As described.")
END
