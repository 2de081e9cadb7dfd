#!/bin/sh
# Guess: An observation space Dict of joint_1 to joint_12 is flattened in that order.
# What happens: Dict sorts the names that a plain dict gives it: joint_10, joint_11 and joint_12 come before joint_2,
#   and a state written as {"position": ..., "gripper": ...} has the gripper first. Pairs and keywords are not sorted.
# Versions: gymnasium 1.4.0, numpy 2.4.6
# Output on 28 November 2026:
#   a dict of joints, flattened: [1, 10, 11, 12, 2, 3, 4, 5, 6, 7, 8, 9]
#   pairs of joints, flattened: [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12]
#   a dict of parts: ['gripper', 'position']
#   parts by keyword: ['position', 'gripper']
set -eu
packages="gymnasium==1.4.0 numpy==2.4.6"
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
from gymnasium.spaces import Box, Dict
from gymnasium.wrappers import FlattenObservation

JOINTS = [f"joint_{number}" for number in range(1, 13)]


class Arm(gym.Env):
    action_space = Box(-1, 1, (12,))

    def __init__(self, spaces):
        self.observation_space = Dict(spaces)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        return {name: np.float32([number + 1]) for number, name in enumerate(JOINTS)}, {}


def flat(spaces):
    observation, _ = FlattenObservation(Arm(spaces)).reset(seed=0)
    return observation.astype(int).tolist()


pairs = [(name, Box(-20, 20, (1,))) for name in JOINTS]
state = {"position": Box(0, 1, (3,)), "gripper": Box(0, 1, (1,))}
seen = {
    "a dict of joints, flattened": flat(dict(pairs)),
    "pairs of joints, flattened": flat(pairs),
    "a dict of parts": list(Dict(state)),
    "parts by keyword": list(Dict(**state)),
}
for name, value in seen.items():
    print(f"{name}: {value}")

expected = {
    "a dict of joints, flattened": [1, 10, 11, 12, 2, 3, 4, 5, 6, 7, 8, 9],
    "pairs of joints, flattened": [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12],
    "a dict of parts": ["gripper", "position"],
    "parts by keyword": ["position", "gripper"],
}
if seen != expected:
    sys.exit(f"CHANGED: expected {expected}")
print("As described.")
END
