#!/bin/sh
# Guess: add_features gives the new feature statistics, or the normaliser says that there are none.
# What happens: LeRobot's log says that it recalculates statistics, but it copies those of the old features. The
#   normaliser passes on what has none: a force of up to 2,900 goes to the policy beside joints of about 1. Nothing
#   warns of it; `recompute_stats` mends it.
# Versions: lerobot[dataset] 0.6.1, torch 2.11.0, torchvision 0.26.0, numpy 2.2.6
# Output on 29 November 2026:
#   after add_features: the largest state 1.68, the largest force 2900.0
#   after recompute_stats: the largest state 1.68, the largest force 1.68
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

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["HF_HOME"] = os.path.abspath("home")
os.environ["TQDM_DISABLE"] = "1"
logging.disable(logging.CRITICAL)
import datasets
import numpy as np
import torch
from lerobot.configs.types import FeatureType, NormalizationMode, PolicyFeature
from lerobot.datasets.dataset_tools import add_features, recompute_stats
from lerobot.datasets.lerobot_dataset import LeRobotDataset
from lerobot.processor import NormalizerProcessorStep, TransitionKey

datasets.disable_progress_bars()
STATE, FORCE = "observation.state", "observation.force"
features = {STATE: {"dtype": "float32", "shape": (1,), "names": ["elbow"]}}
dataset = LeRobotDataset.create("robot/runs", fps=30, features=features, root="runs", use_videos=False)
for frame in range(30):
    dataset.add_frame({STATE: np.array([frame], np.float32), "task": "press"})
dataset.save_episode()
dataset.finalize()

force = np.arange(30, dtype=np.float32)[:, None] * 100
info = {"dtype": "float32", "shape": (1,), "names": ["newton"]}
added = add_features(LeRobotDataset("robot/runs", root="runs"), {FORCE: (force, info)}, output_dir="added")


def largest(stats):
    """The largest normalised value of each feature."""
    inputs = {key: PolicyFeature(FeatureType.STATE, (1,)) for key in (STATE, FORCE)}
    normalizer = NormalizerProcessorStep(
        features=inputs, norm_map={FeatureType.STATE: NormalizationMode.MEAN_STD}, stats=stats
    )
    values = {key: torch.stack([added[number][key].reshape(-1) for number in range(30)]) for key in inputs}
    normal = normalizer({TransitionKey.OBSERVATION: values})[TransitionKey.OBSERVATION]
    return [round(float(normal[key].max()), 2) for key in inputs]


seen = {"after add_features": largest(added.meta.stats)}
seen["after recompute_stats"] = largest(recompute_stats(added).meta.stats)
for name, (state, newton) in seen.items():
    print(f"{name}: the largest state {state}, the largest force {newton}")

expected = {
    "after add_features": [1.68, 2900.0],
    "after recompute_stats": [1.68, 1.68],
}
if seen != expected:
    sys.exit(f"CHANGED: expected {expected}")
print("As described.")
END
