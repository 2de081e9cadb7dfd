#!/bin/sh
# Guess: LeRobot refuses a state that is not a number, or leaves it out of the dataset's statistics.
# What happens: it records it, and one NaN in 300 frames makes minimum, maximum, mean, deviation and quantiles of that
#   joint NaN for the whole dataset: normalised by them, the joint is NaN in every frame of every episode. Nothing warns
#   of it.
# Versions: lerobot[dataset] 0.6.1, torch 2.11.0, torchvision 0.26.0, numpy 2.2.6
# Output on 27 November 2026:
#   NaN in the data: [1, 0]
#   NaN after normalisation: [300, 0]
#   statistics of the elbow that are NaN: ['max', 'mean', 'min', 'q01', 'q10', 'q50', 'q90', 'q99', 'std']
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
logging.disable(logging.CRITICAL)
import datasets
import numpy as np
import torch
from lerobot.configs.types import FeatureType, NormalizationMode, PolicyFeature
from lerobot.datasets.lerobot_dataset import LeRobotDataset
from lerobot.processor import NormalizerProcessorStep, TransitionKey

datasets.disable_progress_bars()
name = "observation.state"
features = {name: {"dtype": "float32", "shape": (2,), "names": ["elbow", "wrist"]}}
dataset = LeRobotDataset.create("robot/runs", fps=30, features=features, root="runs", use_videos=False)
draw = np.random.default_rng(0)
for episode in range(3):
    states = draw.uniform(-1, 1, (100, 2)).astype(np.float32)
    if episode == 1:
        states[7, 0] = np.nan
    for state in states:
        dataset.add_frame({name: state, "task": "reach"})
    dataset.save_episode()
dataset.finalize()

dataset = LeRobotDataset("robot/runs", root="runs")
stats = dataset.meta.stats[name]
normalizer = NormalizerProcessorStep(
    features={name: PolicyFeature(FeatureType.STATE, (2,))},
    norm_map={FeatureType.STATE: NormalizationMode.MEAN_STD},
    stats=dataset.meta.stats,
)
states = torch.stack([dataset[number][name] for number in range(len(dataset))])
normal = normalizer({TransitionKey.OBSERVATION: {name: states}})[TransitionKey.OBSERVATION][name]
seen = {
    "NaN in the data": torch.isnan(states).sum(0).tolist(),
    "NaN after normalisation": torch.isnan(normal).sum(0).tolist(),
    "statistics of the elbow that are NaN": sorted(k for k, v in stats.items() if np.isnan(v[0])),
}
for name, value in seen.items():
    print(f"{name}: {value}")

expected = {
    "NaN in the data": [1, 0],
    "NaN after normalisation": [300, 0],
    "statistics of the elbow that are NaN": ["max", "mean", "min", "q01", "q10", "q50", "q90", "q99", "std"],
}
if seen != expected:
    sys.exit(f"CHANGED: expected {expected}")
print("As described.")
END
