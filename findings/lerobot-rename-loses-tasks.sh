#!/bin/sh
# Guess: modify_tasks(task_replacements={"wave": "wave a hand"}) renames that task wherever it appears, and changes no
#   other.
# What happens: Each episode gets one task for all of its frames. One that was "pick" and then "place" is all the one or
#   all the other, as a set's order has it, though nobody waved in it; in place, and with no word of it. Deleting,
#   splitting and merging keep the task of each frame.
# Versions: lerobot[dataset] 0.6.1, torch 2.11.0, torchvision 0.26.0, numpy 2.2.6
# Output on 28 November 2026:
#   recorded: {'pick': 10, 'place': 10, 'wave': 10}
#   merged: {'pick': 10, 'place': 10, 'wave': 10}
#   renamed: {'wave a hand': 10, 'pick or place': 20}
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
from collections import Counter

os.environ |= {"HF_HUB_OFFLINE": "1", "TQDM_DISABLE": "1"}
os.environ["HF_HOME"] = os.path.abspath("home")
logging.disable(logging.CRITICAL)
import datasets
import numpy as np
from lerobot.datasets.dataset_tools import merge_datasets, modify_tasks
from lerobot.datasets.lerobot_dataset import LeRobotDataset

datasets.disable_progress_bars()
features = {"action": {"dtype": "float32", "shape": (2,), "names": ["reach", "turn"]}}
dataset = LeRobotDataset.create("robot/runs", fps=10, features=features, root="runs", use_videos=False)
for tasks in (["pick", "place"], ["wave"]):
    for task in tasks:
        for _ in range(10):
            dataset.add_frame({"action": np.zeros(2, np.float32), "task": task})
    dataset.save_episode()
dataset.finalize()


def tasks_of(dataset):
    return dict(Counter(frame["task"] for frame in dataset))


def runs():
    return LeRobotDataset("robot/runs", root="runs")


seen = {"recorded": tasks_of(runs()), "merged": tasks_of(merge_datasets([runs()], "robot/merged", "merged"))}
modify_tasks(runs(), task_replacements={"wave": "wave a hand"})
renamed = tasks_of(runs())
for either in ("pick", "place"):
    if either in renamed:
        renamed["pick or place"] = renamed.pop(either)
seen["renamed"] = renamed
for name, frames in seen.items():
    print(f"{name}: {frames}")

expected = {
    "recorded": {"pick": 10, "place": 10, "wave": 10},
    "merged": {"pick": 10, "place": 10, "wave": 10},
    "renamed": {"wave a hand": 10, "pick or place": 20},
}
if seen != expected:
    sys.exit(f"CHANGED: expected {expected}")
print("As described.")
END
