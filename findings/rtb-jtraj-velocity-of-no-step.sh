#!/bin/sh
# Guess: A trajectory of 201 steps from 0 to 1 has the same unit of velocity from `jtraj` and from `mtraj`, the one
#   that its positions and its `t` give.
# What happens: `mtraj` gives 0.0094 a step, `jtraj` 1.875, the velocity by shares of the whole way, as if all of it
#   took one step; its `t` counts steps, and a little too long ones: the last of 201 is 201, not 200. With an array of
#   times both are as guessed.
# Versions: roboticstoolbox-python 1.5.0, numpy 2.5.5
# Output on 30 November 2026:
#   largest step of the positions: 0.0094
#   mtraj, 201 steps: velocity 0.009375, last t 200
#   jtraj, 201 steps: velocity 1.875, last t 201.0
#   jtraj, 201 times of 0 ... 200 s: velocity 0.009375, last t 200.0
set -eu
packages="roboticstoolbox-python==1.5.0 numpy==2.5.5"
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

import numpy as np
import roboticstoolbox as rtb

STEPS = 201
SECONDS = np.linspace(0, 200, STEPS)


def described(trajectory):
    velocity = np.max(trajectory.qd)
    return f"velocity {velocity:.4g}, last t {trajectory.t[-1]}"


start, goal = np.zeros(1), np.ones(1)
by_steps = rtb.jtraj(start, goal, STEPS)
seen = {
    "largest step of the positions": round(float(np.diff(by_steps.q[:, 0]).max()), 4),
    "mtraj, 201 steps": described(rtb.mtraj(rtb.quintic, start, goal, STEPS)),
    "jtraj, 201 steps": described(by_steps),
    "jtraj, 201 times of 0 ... 200 s": described(rtb.jtraj(start, goal, SECONDS)),
}

expected = {
    "largest step of the positions": 0.0094,
    "mtraj, 201 steps": "velocity 0.009375, last t 200",
    "jtraj, 201 steps": "velocity 1.875, last t 201.0",
    "jtraj, 201 times of 0 ... 200 s": "velocity 0.009375, last t 200.0",
}

for name, value in seen.items():
    print(f"{name}: {value}")
if seen != expected:
    sys.exit(f"CHANGED: expected {expected}")
print("As described.")
END
