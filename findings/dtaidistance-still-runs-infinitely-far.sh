#!/bin/sh
# Guess: dtaidistance's fast distance by time warping is that of its plain function: of a gripper that stays shut and one
#   that stays open, over n frames each, the square root of n.
# What happens: over 3, 6, 12 and 13 frames it is infinite, and so for 12 of the numbers up to 40. The fast function prunes
#   by default: it drops paths that cost more than the Euclidean distance, which is the very distance where nothing is to
#   be warped; its square, rounded down, drops the last path, too. A matrix of distances that is asked to prune has the
#   same hole. Without pruning both functions agree.
# Versions: dtaidistance 2.5.1, numpy 2.3.5
# Output on 1 December 2026:
#   plain function, infinite over: []
#   fast function, infinite over: [3, 6, 12, 13, 18, 23, 24, 26, 29, 31, 37, 38]
#   fast function without pruning, infinite over: []
#   shut, open and half open, 3 frames, a matrix that prunes: [[0.0, inf, inf], [inf, 0.0, inf], [inf, inf, 0.0]]
set -eu
packages="dtaidistance==2.5.1 numpy==2.3.5"
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
from dtaidistance import dtw


def infinite(distance, **options):
    """Over how many frames a still gripper is infinitely far from another still one."""
    return [n for n in range(2, 41) if np.isinf(distance(np.zeros(n), np.ones(n), **options))]


grippers = [np.full(3, opening) for opening in (0.0, 1.0, 0.5)]
seen = {
    "plain function, infinite over": infinite(dtw.distance),
    "fast function, infinite over": infinite(dtw.distance_fast),
    "fast function without pruning, infinite over": infinite(dtw.distance_fast, use_pruning=False),
    "shut, open and half open, 3 frames, a matrix that prunes": dtw.distance_matrix_fast(grippers, use_pruning=True)
    .round(3)
    .tolist(),
}
for name, value in seen.items():
    print(f"{name}: {value}")

inf = float("inf")
expected = [
    [],
    [3, 6, 12, 13, 18, 23, 24, 26, 29, 31, 37, 38],
    [],
    [[0.0, inf, inf], [inf, 0.0, inf], [inf, inf, 0.0]],
]
if list(seen.values()) != expected:
    sys.exit(f"CHANGED: expected {expected}")
print("As described.")
END
