#!/bin/sh
# Guess: For a hand that is pitched by 90 degrees, roll and yaw can be divided in many ways, and each library gives one
#   of them: the angles give the same rotation again.
# What happens: SciPy, trimesh, pytransform3d and Pinocchio do. From jaxlie's angles and from rowan's extrinsic ones
#   some rotations come back turned by more than 60 degrees, and jaxlie gives NaN for others. None of the two says
#   anything; SciPy warns although it is right.
# Versions: jaxlie 1.5.0, jax 0.12.0.1, rowan 1.3.2, trimesh 5.2.0, pytransform3d 3.17.0, pin 4.1.0, scipy 1.17.1, numpy
#   2.4.6
# Output on 28 November 2026:
#   SciPy: 0 of 72 turned by more than 60 degrees, 0 NaN
#   trimesh: 0 of 72 turned by more than 60 degrees, 0 NaN
#   pytransform3d: 0 of 72 turned by more than 60 degrees, 0 NaN
#   Pinocchio: 0 of 72 turned by more than 60 degrees, 0 NaN
#   jaxlie: 40 of 72 turned by more than 60 degrees, 24 NaN
#   rowan: 47 of 72 turned by more than 60 degrees, 0 NaN
set -eu
packages="jaxlie==1.5.0 jax==0.12.0.1 rowan==1.3.2 trimesh==5.2.0 pytransform3d==3.17.0 pin==4.1.0 scipy==1.17.1 numpy==2.4.6"
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

import jax.numpy as jnp
import numpy as np
import pinocchio as pin
import rowan
from jaxlie import SO3
from pytransform3d.rotations import euler_from_matrix, matrix_from_euler
from scipy.spatial.transform import Rotation
from trimesh.transformations import euler_from_matrix as trimesh_angles
from trimesh.transformations import euler_matrix

warnings.simplefilter("ignore")  # SciPy's own: gimbal lock


def by_jaxlie(pose):
    angles = SO3(jnp.array(pose.as_quat(scalar_first=True))).as_rpy_radians()
    return SO3.from_rpy_radians(*angles).as_matrix()


def by_rowan(pose):
    angles = rowan.to_euler(pose.as_quat(scalar_first=True), "xyz", "extrinsic")
    return rowan.to_matrix(rowan.from_euler(*angles, "xyz", "extrinsic"))


def by_trimesh(pose):
    matrix = np.eye(4)
    matrix[:3, :3] = pose.as_matrix()
    return euler_matrix(*trimesh_angles(matrix))[:3, :3]


WAYS = {
    "SciPy": lambda pose: Rotation.from_euler("xyz", pose.as_euler("xyz")).as_matrix(),
    "trimesh": by_trimesh,
    "pytransform3d": lambda pose: matrix_from_euler(
        euler_from_matrix(pose.as_matrix(), 0, 1, 2, extrinsic=True), 0, 1, 2, extrinsic=True
    ),
    "Pinocchio": lambda pose: pin.rpy.rpyToMatrix(pin.rpy.matrixToRpy(pose.as_matrix())),
    "jaxlie": by_jaxlie,
    "rowan": by_rowan,
}
turns = [(yaw, 90, roll) for yaw in range(0, 180, 15) for roll in range(0, 90, 15)]
poses = [Rotation.from_euler("ZYX", turn, degrees=True) for turn in turns]
seen = {}
for name, way in WAYS.items():
    matrices = [np.asarray(way(pose), float) for pose in poses]
    pairs = [(matrix, pose) for matrix, pose in zip(matrices, poses, strict=True) if not np.isnan(matrix).any()]
    errors = np.rad2deg([(Rotation.from_matrix(matrix) * pose.inv()).magnitude() for matrix, pose in pairs])
    missing = len(poses) - len(pairs)
    print(f"{name}: {(errors > 60).sum()} of {len(poses)} turned by more than 60 degrees, {missing} NaN")
    # How many they are is up to rounding
    seen[name] = "the same" if errors.max() < 1 and not missing else "others"
    if name == "jaxlie":
        seen["jaxlie, NaN"] = missing > 0

expected = dict.fromkeys(WAYS, "the same") | {"jaxlie": "others", "jaxlie, NaN": True, "rowan": "others"}
if seen != expected:
    sys.exit(f"CHANGED: expected {expected}")
print("As described.")
END
