#!/bin/sh
# Guess: NormalizeReward begins a new return with each episode, also after one that a time limit ended.
# What happens: only a terminated episode ends the return; after a truncated one it goes on as if nothing had
#   happened. Of ten steps of reward 1, the same reward is 0.37 where episodes terminate and 0.07 where they are
#   truncated. VecNormalize of Stable-Baselines3 gives 0.37 for both.
# Versions: gymnasium 1.4.0, stable-baselines3 2.9.2, torch 2.11.0, numpy 2.2.6
# Output on 29 November 2026:
#   terminated: a reward of 1 is 0.37, by Stable-Baselines3 0.37
#   truncated: a reward of 1 is 0.07, by Stable-Baselines3 0.37
set -eu
packages="gymnasium==1.4.0 stable-baselines3==2.9.2 torch==2.11.0 numpy==2.2.6"
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
from stable_baselines3.common.vec_env import DummyVecEnv, VecNormalize

STEPS, LENGTH = 2000, 10


class Reach(gym.Env):
    observation_space = gym.spaces.Box(-1, 1, (1,))
    action_space = gym.spaces.Discrete(2)

    def __init__(self, terminates):
        self.terminates = terminates

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.time = 0
        return np.zeros(1, np.float32), {}

    def step(self, action):
        self.time += 1
        done = self.time == LENGTH
        return np.zeros(1, np.float32), 1.0, done and self.terminates, done and not self.terminates, {}


def by_gymnasium(terminates):
    env = gym.wrappers.NormalizeReward(Reach(terminates))
    env.reset()
    for _ in range(STEPS):
        _, reward, terminated, truncated, _ = env.step(0)
        if terminated or truncated:
            env.reset()
    return round(float(reward), 2)


def by_sb3(terminates):
    env = VecNormalize(DummyVecEnv([lambda: Reach(terminates)]), norm_obs=False)
    env.reset()
    for _ in range(STEPS):
        reward = env.step(np.array([0]))[1]
    return round(float(reward[0]), 2)


seen = {}
for ending, terminates in (("terminated", True), ("truncated", False)):
    seen[ending] = [by_gymnasium(terminates), by_sb3(terminates)]
    print(f"{ending}: a reward of 1 is {seen[ending][0]}, by Stable-Baselines3 {seen[ending][1]}")

expected = {
    "terminated": [0.37, 0.37],
    "truncated": [0.07, 0.37],
}
if seen != expected:
    sys.exit(f"CHANGED: expected {expected}")
print("As described.")
END
