#!/bin/sh
# Guess: procrustes() of a marker's four corners and the same corners, turned and moved, is that turn and move.
# What happens: For points in a plane a mirror fits as well as a turn, and it is what comes out for about every other
#   pose, from exact corners, with no word of it: the marker's axis points the other way. The quaternion made of it is
#   another rotation. With reflection=False the pose is right each time; SciPy's align_vectors() finds it, too.
# Versions: trimesh 5.2.0, scipy 1.17.1, numpy 2.4.6
# Output on 28 November 2026:
#   corners fit: 100 of 100
#   mirror: 42 of 100
#   right with reflection=False: 100 of 100
#   right with SciPy: 100 of 100
#   by quaternion, the worst pose is wrong by 178 degrees
set -eu
packages="trimesh==5.2.0 scipy==1.17.1 numpy==2.4.6"
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
from scipy.spatial.transform import Rotation
from trimesh.registration import procrustes
from trimesh.transformations import quaternion_from_matrix

CORNERS = np.array([[-0.02, -0.02, 0], [0.02, -0.02, 0], [0.02, 0.02, 0], [-0.02, 0.02, 0]])
poses = Rotation.random(100, rng=0)
moves = np.random.default_rng(0).uniform(-1, 1, (100, 3))
counts = {"corners fit": 0, "mirror": 0, "right with reflection=False": 0, "right with SciPy": 0}
errors = []
for pose, move in zip(poses, moves, strict=True):
    corners = pose.apply(CORNERS) + move
    matrix, fitted, _ = procrustes(CORNERS, corners)
    w, x, y, z = quaternion_from_matrix(matrix)
    errors.append((Rotation.from_quat([x, y, z, w]) * pose.inv()).magnitude())
    plain, _, _ = procrustes(CORNERS, corners, reflection=False)
    aligned, _ = Rotation.align_vectors(corners - move, CORNERS)
    counts["corners fit"] += np.allclose(fitted, corners)
    counts["mirror"] += np.linalg.det(matrix[:3, :3]) < 0
    counts["right with reflection=False"] += np.allclose(plain[:3, :3], pose.as_matrix())
    counts["right with SciPy"] += np.allclose(aligned.as_matrix(), pose.as_matrix())
for name, count in counts.items():
    print(f"{name}: {count} of 100")
worst = np.rad2deg(max(errors))
print(f"by quaternion, the worst pose is wrong by {worst:.0f} degrees")

# How many are mirrors is up to rounding
seen = counts | {"mirror": "many" if 20 <= counts["mirror"] <= 80 else counts["mirror"], "wrong": worst > 90}
expected = {
    "corners fit": 100,
    "mirror": "many",
    "right with reflection=False": 100,
    "right with SciPy": 100,
    "wrong": True,
}
if seen != expected:
    sys.exit(f"CHANGED: expected {expected}")
print("As described.")
END
