#!/bin/sh
# Guess: What environments report in `info` comes out of a vector environment as they reported it: one says 0, the
#   next 0.75, and so it is [0, 0.75].
# What happens: The first environment's value decides on the type for all at each step: behind a 0 or 1 without a point
#   0.75 is 0, behind True it is True. It says nothing, and where all have a point it is right, so that a run's
#   progress jumps to 0 and back while another environment has not begun. Asynchronous ones do the same; the same
#   numbers as arrays, and texts, come through.
# Versions: gymnasium 1.4.0, numpy 2.4.6
# Output on 1 December 2026:
#   reported by the second: [0.25, 0.5, 0.75, 0.9]
#   behind 0, 0, 0.5, 1: [0, 0, 0.75, 0]
#   the other way round: [0.25, 0.5, 0.75, 0.9]
#   behind 0, 0, 0.5, 1, asynchronous: [0, 0, 0.75, 0]
#   behind False, False, True, True: [True, True, True, True]
#   as arrays: [0.25, 0.5, 0.75, 0.9]
#   warnings: []
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
import warnings
from functools import partial

import gymnasium as gym
import numpy as np
from gymnasium.vector import AsyncVectorEnv, SyncVectorEnv

said = []
warnings.showwarning = lambda *args, **_: said.append(str(args[0]))


class Task(gym.Env):
    """A task that reports how far it has come."""

    observation_space = gym.spaces.Box(-1, 1, (2,))
    action_space = gym.spaces.Discrete(2)

    def __init__(self, reports):
        self.reports = reports

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.remaining = list(self.reports)
        return np.zeros(2, np.float32), {}

    def step(self, action):
        return np.zeros(2, np.float32), 0.0, False, False, {"progress": self.remaining.pop(0)}


def progress(*reports, number=1, kind=SyncVectorEnv):
    """What the vector environment says of one of two environments, step by step."""
    tasks = kind([partial(Task, values) for values in reports])
    tasks.reset(seed=0)
    steps = [tasks.step(np.zeros(2, int))[4]["progress"][number].tolist() for _ in reports[0]]
    tasks.close()
    return steps


if __name__ == "__main__":
    whole, halves = [0, 0, 0.5, 1], [0.25, 0.5, 0.75, 0.9]
    arrays = [[np.array(value, np.float64) for value in values] for values in (whole, halves)]
    seen = {
        "reported by the second": halves,
        "behind 0, 0, 0.5, 1": progress(whole, halves),
        "the other way round": progress(halves, whole, number=0),
        "behind 0, 0, 0.5, 1, asynchronous": progress(whole, halves, kind=AsyncVectorEnv),
        "behind False, False, True, True": progress([False, False, True, True], halves),
        "as arrays": progress(*arrays),
    }
    expected = {
        "reported by the second": [0.25, 0.5, 0.75, 0.9],
        "behind 0, 0, 0.5, 1": [0, 0, 0.75, 0],
        "the other way round": [0.25, 0.5, 0.75, 0.9],
        "behind 0, 0, 0.5, 1, asynchronous": [0, 0, 0.75, 0],
        "behind False, False, True, True": [True, True, True, True],
        "as arrays": [0.25, 0.5, 0.75, 0.9],
    }
    for name, value in seen.items():
        print(f"{name}: {value}")
    print(f"warnings: {said}")
    if seen != expected or said:
        sys.exit(f"CHANGED: expected {expected}")
    print("As described.")
END
