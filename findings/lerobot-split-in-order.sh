#!/bin/sh
# Guess: split_dataset with {"train": 0.8, "val": 0.2} draws the episodes, as other splits by share do.
# What happens: the first 80 % are train and the last 20 % val, in order of recording: of ten episodes of ten tasks,
#   val has tasks 8 and 9, which no training episode shows. A seed cannot be given. Nothing warns of it.
# Versions: lerobot[dataset] 0.6.1, torch 2.11.0, torchvision 0.26.0, numpy 2.2.6
# Output on 29 November 2026:
#   train: tasks [0, 1, 2, 3, 4, 5, 6, 7]
#   val: tasks [8, 9]
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
from lerobot.datasets.dataset_tools import split_dataset
from lerobot.datasets.lerobot_dataset import LeRobotDataset

datasets.disable_progress_bars()
name = "observation.state"
features = {name: {"dtype": "float32", "shape": (1,), "names": ["elbow"]}}
dataset = LeRobotDataset.create("robot/runs", fps=30, features=features, root="runs", use_videos=False)
for episode in range(10):
    for frame in range(5):
        dataset.add_frame({name: np.array([frame], np.float32), "task": f"task {episode}"})
    dataset.save_episode()
dataset.finalize()

parts = split_dataset(LeRobotDataset("robot/runs", root="runs"), {"train": 0.8, "val": 0.2}, output_dir="parts")
seen = {part: [int(row["tasks"][0].split()[1]) for row in made.meta.episodes] for part, made in parts.items()}
for part, tasks in seen.items():
    print(f"{part}: tasks {tasks}")

expected = {
    "train": [0, 1, 2, 3, 4, 5, 6, 7],
    "val": [8, 9],
}
if seen != expected:
    sys.exit(f"CHANGED: expected {expected}")
print("As described.")
END
