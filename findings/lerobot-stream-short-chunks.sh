#!/bin/sh
# Guess: A chunk of the next 150 actions is the same whether a LeRobot dataset is read from disk or streamed.
# What happens: Streaming looks 100 frames ahead and 99 back, whatever delta_timestamps asks for. What lies further is
#   the last action that it has, marked as padding, in the middle of an episode: a loss that masks padding never sees
#   actions 101 to 149. Nothing warns of it.
# Versions: lerobot[dataset] 0.6.1, torch 2.11.0, torchvision 0.26.0, numpy 2.2.6
# Output on 28 November 2026:
#   149 frames ahead, from disk: {'actions': [200, 349], 'padding': 0}
#   149 frames ahead, streamed: {'actions': [200, 300], 'padding': 49}
#   149 frames back, from disk: {'actions': [51, 200], 'padding': 0}
#   149 frames back, streamed: {'actions': [101, 200], 'padding': 50}
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
from lerobot.datasets.lerobot_dataset import LeRobotDataset
from lerobot.datasets.streaming_dataset import StreamingLeRobotDataset

datasets.disable_progress_bars()
features = {"action": {"dtype": "float32", "shape": (2,), "names": ["frame", "turn"]}}
dataset = LeRobotDataset.create("robot/runs", fps=10, features=features, root="runs", use_videos=False)
for number in range(400):
    dataset.add_frame({"action": np.array([number, 0], np.float32), "task": "reach"})
dataset.save_episode()
dataset.finalize()

WINDOWS = {"149 frames ahead": range(150), "149 frames back": range(-149, 1)}
seen = {}
for window, steps in WINDOWS.items():
    options = {"root": "runs", "delta_timestamps": {"action": [step / 10 for step in steps]}}
    stream = StreamingLeRobotDataset("robot/runs", buffer_size=1, **options)
    frames = {
        "from disk": LeRobotDataset("robot/runs", **options)[200],
        "streamed": next(frame for frame in stream if int(frame["index"]) == 200),
    }
    for way, frame in frames.items():
        actions = frame["action"][:, 0]
        ends = [int(actions.min()), int(actions.max())]
        seen[f"{window}, {way}"] = {"actions": ends, "padding": int(frame["action_is_pad"].sum())}
for name, value in seen.items():
    print(f"{name}: {value}")

expected = {
    "149 frames ahead, from disk": {"actions": [200, 349], "padding": 0},
    "149 frames ahead, streamed": {"actions": [200, 300], "padding": 49},
    "149 frames back, from disk": {"actions": [51, 200], "padding": 0},
    "149 frames back, streamed": {"actions": [101, 200], "padding": 50},
}
if seen != expected:
    sys.exit(f"CHANGED: expected {expected}")
print("As described.")
END
