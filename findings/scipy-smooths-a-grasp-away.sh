#!/bin/sh
# Guess: a gripper's flags 0 and 1, smoothed by SciPy's gaussian_filter1d, are between 0 and 1, and above a half where
#   it is closed.
# What happens: ndimage gives back the type it was given: of whole numbers or booleans all below 1 is 0. A grasp of
#   three frames is gone, and one that begins at frame 13 begins at 19. Only floats are smoothed. Nothing warns of it.
# Versions: scipy 1.18.1, numpy 2.2.6
# Output on 29 November 2026:
#   float64: grasps begin at [5, 13], end at [7, 29]
#   int64: grasps begin at [19], end at [23]
#   bool: grasps begin at [19], end at [23]
set -eu
packages="scipy==1.18.1 numpy==2.2.6"
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
from scipy.ndimage import gaussian_filter1d

closed = np.zeros(40, int)
closed[5:8] = 1
closed[13:30] = 1
seen = {}
for kind in ("float64", "int64", "bool"):
    smooth = gaussian_filter1d(closed.astype(kind), 1.5)
    steps = np.diff((smooth >= 0.5).astype(int), prepend=0)
    seen[kind] = [(np.flatnonzero(steps == way) - (way < 0)).tolist() for way in (1, -1)]
    print(f"{kind}: grasps begin at {seen[kind][0]}, end at {seen[kind][1]}")

expected = {
    "float64": [[5, 13], [7, 29]],
    "int64": [[19], [23]],
    "bool": [[19], [23]],
}
if seen != expected:
    sys.exit(f"CHANGED: expected {expected}")
print("As described.")
END
