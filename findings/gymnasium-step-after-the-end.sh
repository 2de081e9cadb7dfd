#!/bin/sh
# Guess: ten episodes of five steps, stepped in a vector environment and recorded, are fifty transitions.
# What happens: they are sixty: Gymnasium resets in the step after the last one. That step takes an action which
#   nothing obeys, has reward 0 and no end, and leads from an episode's last observation to the next one's first: one
#   bad transition an episode. With AutoresetMode.SAME_STEP there are fifty, but the last observation is the next one's
#   first.
# Versions: gymnasium 1.4.0, numpy 2.2.6
# Output on 29 November 2026:
#   as it is: transitions 60, without reward 10, the fifth (4, 1.0, 5, True), the sixth (5, 0.0, 0, False)
#   SAME_STEP: transitions 50, without reward 0, the fifth (4, 1.0, 0, True), the sixth (0, 1.0, 1, False)
set -eu
packages="gymnasium==1.4.0 numpy==2.2.6"
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


class FiveSteps(gym.Env):
    """The observation is how often it was stepped."""

    observation_space = gym.spaces.Box(0, 5, (1,))
    action_space = gym.spaces.Box(-1, 1, (1,))

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.count = 0
        return np.zeros(1, np.float32), {}

    def step(self, action):
        self.count += 1
        return np.full(1, self.count, np.float32), 1.0, self.count == 5, False, {}


def transitions(mode):
    """Observation, reward, next observation and whether it ends, until ten episodes have ended."""
    environment = gym.vector.SyncVectorEnv([FiveSteps], **mode)
    before, _ = environment.reset()
    rows = []
    while sum(row[3] for row in rows) < 10 or environment.envs[0].unwrapped.count == 5:
        after, reward, ended, _, _ = environment.step(np.zeros((1, 1), np.float32))
        rows.append((int(before[0, 0]), float(reward[0]), int(after[0, 0]), bool(ended[0])))
        before = after.copy()
    return rows


same_step = {"autoreset_mode": gym.vector.AutoresetMode.SAME_STEP}
seen = {}
for name, mode in {"as it is": {}, "SAME_STEP": same_step}.items():
    rows = transitions(mode)
    seen[name] = [len(rows), sum(row[1] == 0 for row in rows), rows[4], rows[5]]
    print(f"{name}: transitions {len(rows)}, without reward {seen[name][1]}, the fifth {rows[4]}, the sixth {rows[5]}")

expected = {
    "as it is": [60, 10, (4, 1.0, 5, True), (5, 0.0, 0, False)],
    "SAME_STEP": [50, 0, (4, 1.0, 0, True), (0, 1.0, 1, False)],
}
if seen != expected:
    sys.exit(f"CHANGED: expected {expected}")
print("As described.")
END
