#!/bin/sh
# Guess: NormalizeReward brings rewards near 1: one that is always 1 stays near 1 from the first step on.
# What happens: the first is 70.71, and with 64 environments 564.78 in each of them: equal returns have no variance,
#   and it divides by the little that its start value leaves. Nothing clips it, and a value function learns from it.
# Versions: gymnasium 1.4.0, numpy 2.5.5
# Output on 28 November 2026:
#   1 environment: [70.71, 2.02, 1.24, 0.91]
#   8 environments: [199.96, 2.02, 1.24, 0.91]
#   64 environments: [564.78, 2.02, 1.24, 0.91]
set -eu
packages="gymnasium==1.4.0 numpy==2.5.5"
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
import sys

import gymnasium as gym
import numpy as np
from gymnasium import spaces
from gymnasium.wrappers import NormalizeReward
from gymnasium.wrappers.vector import NormalizeReward as NormalizeRewards


class Arm(gym.Env):
    """The reward of each step is 1."""

    observation_space = spaces.Box(-1, 1, (1,), np.float32)
    action_space = spaces.Box(-1, 1, (1,), np.float32)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        return np.zeros(1, np.float32), {}

    def step(self, action):
        return np.zeros(1, np.float32), 1.0, False, False, {}


def one():
    arm = NormalizeReward(Arm())
    arm.reset()
    return [round(float(arm.step(np.zeros(1))[1]), 2) for _ in range(4)]


def several(count):
    arms = NormalizeRewards(gym.vector.SyncVectorEnv([Arm] * count))
    arms.reset()
    actions = np.zeros((count, 1), np.float32)
    return [round(float(arms.step(actions)[1][0]), 2) for _ in range(4)]


seen = {"1 environment": one(), "8 environments": several(8), "64 environments": several(64)}
for name, rewards in seen.items():
    print(f"{name}: {rewards}")

expected = {
    "1 environment": [70.71, 2.02, 1.24, 0.91],
    "8 environments": [199.96, 2.02, 1.24, 0.91],
    "64 environments": [564.78, 2.02, 1.24, 0.91],
}
if seen != expected:
    sys.exit(f"CHANGED: expected {expected}")
print("As described.")
END
