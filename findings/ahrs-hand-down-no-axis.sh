#!/bin/sh
# Guess: The turn of a hand that points straight down, by 180 degrees about x, has the axis x in all functions of a
#   library of rotations.
# What happens: ahrs has no axis for it: to_axisangle() gives 0, 0, 0, and the logarithm is 0, that of no turn at all.
#   Of its ways to a quaternion, "chiaverini" gives no turn for it, and for a half turn about a diagonal. SciPy has the
#   axis.
# Versions: ahrs 0.4.0, scipy 1.17.1, numpy 2.4.6
# Output on 28 November 2026:
#   SciPy, turn about x: [180.0, 0.0, 0.0]
#   ahrs, axis: [0.0, 0.0, 0.0]
#   ahrs, angle: 180
#   ahrs, logarithm is 0: True
#   ahrs, shepperd, down: [0.0, 1.0, 0.0, 0.0]
#   ahrs, shepperd, diagonal: [0.0, 0.71, 0.71, 0.0]
#   ahrs, chiaverini, down: [1.0, 0.0, 0.0, 0.0]
#   ahrs, chiaverini, diagonal: [1.0, 0.0, 0.0, 0.0]
set -eu
packages="ahrs==0.4.0 scipy==1.17.1 numpy==2.4.6"
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
from ahrs import DCM
from scipy.spatial.transform import Rotation

down = np.diag([1.0, -1.0, -1.0])
diagonal = np.array([[0.0, 1.0, 0.0], [1.0, 0.0, 0.0], [0.0, 0.0, -1.0]])
axis, angle = DCM(down).to_axisangle()
seen = {
    "SciPy, turn about x": np.rad2deg(Rotation.from_matrix(down).as_rotvec()).round().tolist(),
    "ahrs, axis": axis.tolist(),
    "ahrs, angle": round(float(np.rad2deg(angle))),
    "ahrs, logarithm is 0": bool((DCM(down).log == 0).all()),
}
for method in ("shepperd", "chiaverini"):
    for name, matrix in (("down", down), ("diagonal", diagonal)):
        quaternion = DCM(matrix).to_quaternion(method=method)
        seen[f"ahrs, {method}, {name}"] = str(np.abs(quaternion).round(2).tolist())
for name, value in seen.items():
    print(f"{name}: {value}")

expected = {
    "SciPy, turn about x": [180.0, 0.0, 0.0],
    "ahrs, axis": [0.0, 0.0, 0.0],
    "ahrs, angle": 180,
    "ahrs, logarithm is 0": True,
    "ahrs, shepperd, down": "[0.0, 1.0, 0.0, 0.0]",
    "ahrs, shepperd, diagonal": "[0.0, 0.71, 0.71, 0.0]",
    "ahrs, chiaverini, down": "[1.0, 0.0, 0.0, 0.0]",
    "ahrs, chiaverini, diagonal": "[1.0, 0.0, 0.0, 0.0]",
}
if seen != expected:
    sys.exit(f"CHANGED: expected {expected}")
print("As described.")
END
