#!/bin/sh
# Guess: Where make_vec_env() wraps each environment by a learned reward, evaluate_policy() and the training's log say
#   the rewards that the policy learns from.
# What happens: make_vec_env puts its own Monitor beneath wrapper_class, and both read the Monitor: the policy learns
#   from rewards of 1, and what is logged and evaluated is 0, the simulator's. The same wrapper within the
#   environment, or beneath a Monitor, gives 5 a run. A model is chosen by a reward that it was not trained on.
#   Nothing warns of it.
# Versions: stable-baselines3 2.9.2, gymnasium 1.4.0, torch 2.11.0, numpy 2.2.6
# Output on 30 November 2026:
#   wrapper_class: a run's reward, learnt from 5.0, logged 0.0, evaluated 0.0
#   within the environment: a run's reward, learnt from 5.0, logged 5.0, evaluated 5.0
#   Learned(Monitor(...)): a run's reward, learnt from 5.0, logged 0.0, evaluated 0.0
#   Monitor(Learned(...)): a run's reward, learnt from 5.0, logged 5.0, evaluated 5.0
#   warnings: []
set -eu
packages="stable-baselines3==2.9.2 gymnasium==1.4.0 torch==2.11.0 numpy==2.2.6"
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
import tempfile
import warnings

import gymnasium
import numpy as np
from stable_baselines3 import PPO
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.evaluation import evaluate_policy
from stable_baselines3.common.monitor import Monitor

tempfile.tempdir = "."  # where its log goes
said = []
warnings.showwarning = lambda *args, **_: said.append(str(args[0]))


class Run(gymnasium.Env):
    """Five steps without a reward."""

    observation_space = gymnasium.spaces.Box(-1, 1, (1,))
    action_space = gymnasium.spaces.Box(-1, 1, (1,))

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.steps = 0
        return np.zeros(1, np.float32), {}

    def step(self, action):
        self.steps += 1
        return np.zeros(1, np.float32), 0.0, self.steps == 5, False, {}


class Learned(gymnasium.Wrapper):
    def step(self, action):
        observation, _, *rest = self.env.step(action)
        return observation, 1.0, *rest


ways = {
    "wrapper_class": make_vec_env(Run, 2, wrapper_class=Learned),
    "within the environment": make_vec_env(lambda: Learned(Run()), 2),
    "Learned(Monitor(...))": Learned(Monitor(Run())),
    "Monitor(Learned(...))": Monitor(Learned(Run())),
}
seen = {}
for name, environment in ways.items():
    model = PPO("MlpPolicy", environment, n_steps=64, batch_size=64, device="cpu").learn(64)
    learnt = float(model.rollout_buffer.rewards.mean()) * 5
    logged = float(np.mean([run["r"] for run in model.ep_info_buffer]))
    evaluated = float(evaluate_policy(model, environment, n_eval_episodes=4)[0])
    seen[name] = (learnt, logged, evaluated)
    print(f"{name}: a run's reward, learnt from {learnt}, logged {logged}, evaluated {evaluated}")
print(f"warnings: {said}")

expected = {
    "wrapper_class": (5.0, 0.0, 0.0),
    "within the environment": (5.0, 5.0, 5.0),
    "Learned(Monitor(...))": (5.0, 0.0, 0.0),
    "Monitor(Learned(...))": (5.0, 5.0, 5.0),
}
if seen != expected or said:
    sys.exit(f"CHANGED: expected {expected}")
print("As described.")
END
