#!/bin/sh
# Guess: StreamingLeRobotDataset(episodes=[0]) gives episode 0 alone, as its docstring says and LeRobotDataset does.
# What happens: The argument is kept and never used: all episodes are streamed, those held out too. LeRobotDataset gives
#   the frames of episode 0, and with them the statistics of all episodes, by which they are normalised.
# Versions: lerobot[dataset] 0.6.1, torch 2.11.0, torchvision 0.26.0, numpy 2.2.6
# Output on 28 November 2026:
#   LeRobotDataset: {'episodes': [0], 'frames': 20, 'largest action': [2.0, 2.0]}
#   StreamingLeRobotDataset: {'episodes': [0, 1, 2], 'frames': 60, 'largest action': [2.0, 2.0]}
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
features = {"action": {"dtype": "float32", "shape": (2,), "names": ["reach", "turn"]}}
dataset = LeRobotDataset.create("robot/runs", fps=10, features=features, root="runs", use_videos=False)
for episode in range(3):
    for _ in range(20):
        dataset.add_frame({"action": np.full(2, episode, np.float32), "task": "reach"})
    dataset.save_episode()
dataset.finalize()

seen = {}
for reader in (LeRobotDataset, StreamingLeRobotDataset):
    chosen = reader("robot/runs", root="runs", episodes=[0])
    frames = [int(frame["episode_index"]) for frame in chosen]
    largest = chosen.meta.stats["action"]["max"].tolist()
    seen[reader.__name__] = {"episodes": sorted(set(frames)), "frames": len(frames), "largest action": largest}
for name, value in seen.items():
    print(f"{name}: {value}")

expected = {
    "LeRobotDataset": {"episodes": [0], "frames": 20, "largest action": [2.0, 2.0]},
    "StreamingLeRobotDataset": {"episodes": [0, 1, 2], "frames": 60, "largest action": [2.0, 2.0]},
}
if seen != expected:
    sys.exit(f"CHANGED: expected {expected}")
print("As described.")
END
