#!/bin/sh
# Guess: Two trajectories of ten poses, the second half a step later, are associated one to one, or a pose at equal
#   distance is left out.
# What happens: Each pose of one takes its nearest of the other, whether that is taken or not: by rounding some come
#   twice, others never, and the result says ten pairs. By its output a robot stands still and then leaps.
# Versions: evo 1.38.1, numpy 2.5.5
# Output on 30 November 2026:
#   pairs: 10
#   poses of the first, in the pairs: [0, 2, 2, 3, 4, 5, 7, 8, 9, 9]
#   never: [1, 6]
set -eu
packages="evo==1.38.1 numpy==2.5.5"
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
from evo.core.sync import associate_trajectories
from evo.core.trajectory import PoseTrajectory3D

TIMES = np.arange(10) * 0.1


def trajectory(times):
    return PoseTrajectory3D(
        positions_xyz=np.c_[TIMES, np.zeros((10, 2))],
        orientations_quat_wxyz=np.tile([1.0, 0, 0, 0], (10, 1)),
        timestamps=times,
    )


first, second = associate_trajectories(trajectory(TIMES), trajectory(TIMES + 0.05), max_diff=0.06)
poses = np.rint(first.timestamps * 10).astype(int).tolist()
seen = {
    "pairs": first.num_poses,
    "poses of the first, in the pairs": poses,
    "never": sorted(set(range(10)) - set(poses)),
}

expected = {
    "pairs": 10,
    "poses of the first, in the pairs": [0, 2, 2, 3, 4, 5, 7, 8, 9, 9],
    "never": [1, 6],
}

for name, value in seen.items():
    print(f"{name}: {value}")
if seen != expected:
    sys.exit(f"CHANGED: expected {expected}")
print("As described.")
END
