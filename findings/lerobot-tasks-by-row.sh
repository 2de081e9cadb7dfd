#!/bin/sh
# Guess: The text of a frame's task is that beside its number in tasks.parquet, which has a column of numbers.
# What happens: LeRobot takes the number for a row of the file. The same table in another order, as another tool or a
#   sort may write it, gives frames another task's text. DuckDB joins by the number, and has them right.
# Versions: lerobot[dataset] 0.6.1, torch 2.11.0, torchvision 0.26.0, numpy 2.2.6, duckdb 1.5.5
# Output on 28 November 2026:
#   as recorded: {'LeRobot': ['wave', 'pick', 'place'], 'DuckDB': ['wave', 'pick', 'place']}
#   tasks sorted by text: {'LeRobot': ['pick', 'place', 'wave'], 'DuckDB': ['wave', 'pick', 'place']}
set -eu
packages="lerobot[dataset]==0.6.1 torch==2.11.0 torchvision==0.26.0 numpy==2.2.6 duckdb==1.5.5"
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
import duckdb
import numpy as np
import pandas
from lerobot.datasets.lerobot_dataset import LeRobotDataset

TABLE = "runs/meta/tasks.parquet"
JOIN = f"""
    SELECT DISTINCT episode_index, task
    FROM 'runs/data/*/*.parquet' JOIN '{TABLE}' USING (task_index) ORDER BY episode_index
"""
datasets.disable_progress_bars()
features = {"action": {"dtype": "float32", "shape": (2,), "names": ["reach", "turn"]}}
dataset = LeRobotDataset.create("robot/runs", fps=10, features=features, root="runs", use_videos=False)
for task in ("wave", "pick", "place"):
    for _ in range(10):
        dataset.add_frame({"action": np.zeros(2, np.float32), "task": task})
    dataset.save_episode()
dataset.finalize()


def texts():
    frames = LeRobotDataset("robot/runs", root="runs")
    joined = [task for _, task in duckdb.sql(JOIN).fetchall()]
    return {"LeRobot": [frames[first]["task"] for first in (0, 10, 20)], "DuckDB": joined}


seen = {"as recorded": texts()}
pandas.read_parquet(TABLE).sort_index().to_parquet(TABLE)
seen["tasks sorted by text"] = texts()
for name, tasks in seen.items():
    print(f"{name}: {tasks}")

right = ["wave", "pick", "place"]
expected = {
    "as recorded": {"LeRobot": right, "DuckDB": right},
    "tasks sorted by text": {"LeRobot": ["pick", "place", "wave"], "DuckDB": right},
}
if seen != expected:
    sys.exit(f"CHANGED: expected {expected}")
print("As described.")
END
