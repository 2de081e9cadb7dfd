#!/bin/sh
# Guess: combine_datasets() of a dataset filtered to its successful episodes has those episodes.
# What happens: it has all episodes of the dataset on disk, failed ones too. The filter lives in the object alone;
#   combining reads its folder.
# Versions: minari 0.5.4, gymnasium 1.4.0, h5py 3.16.0, numpy 2.2.6, pillow 12.3.0
# Output on 27 November 2026:
#   filtered: [0, 2, 4]
#   combined: [0, 1, 2, 3, 4, 5, 10]
set -eu
packages="minari==0.5.4 gymnasium==1.4.0 h5py==3.16.0 numpy==2.2.6 pillow==12.3.0"
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
import os
import sys
import warnings

warnings.simplefilter("ignore")
os.environ["MINARI_DATASETS_PATH"] = os.path.abspath("minari")

import gymnasium as gym
import minari
import numpy as np
from minari.data_collector.episode_buffer import EpisodeBuffer


def episode(number, is_success):
    length = 5
    return EpisodeBuffer(
        observations=np.full((length + 1, 2), number, np.float32),
        actions=np.full((length, 2), number, np.float32),
        rewards=np.full(length, float(is_success)),
        terminations=np.arange(length) == (length - 1 if is_success else -1),
        truncations=np.arange(length) == (length - 1 if not is_success else -1),
        infos={},
    )


def dataset(name, episodes):
    box = gym.spaces.Box(-100, 100, (2,), np.float32)
    return minari.create_dataset_from_buffers(name, episodes, observation_space=box, action_space=box)


left = dataset("left-v0", [episode(number, number % 2 == 0) for number in range(6)])
right = dataset("right-v0", [episode(10, True)])
good = left.filter_episodes(lambda run: bool(run.terminations[-1]))
both = minari.combine_datasets([good, right], "both-v0")
seen = {
    "filtered": [int(run.actions[0, 0]) for run in good.iterate_episodes()],
    "combined": [int(run.actions[0, 0]) for run in both.iterate_episodes()],
}
for name, value in seen.items():
    print(f"{name}: {value}")

expected = {
    "filtered": [0, 2, 4],
    "combined": [0, 1, 2, 3, 4, 5, 10],
}
if seen != expected:
    sys.exit(f"CHANGED: expected {expected}")
print("As described.")
END
