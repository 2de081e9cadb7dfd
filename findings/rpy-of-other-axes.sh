#!/bin/sh
# Guess: Roll 10, pitch 20 and yaw 30 degrees, about the axes that the documentation names, come out as they went in.
# What happens: pyquaternion documents z, y', x'' and computes the angles for x, y', z'': its yaw_pitch_roll is 28.5,
#   22.2 and -1.1 of a pose that is 30, 20 and 10. ahrs makes a DCM of three angles that to_rpy() reads otherwise: 10,
#   20, 30 become -28.5, -22.2, 1.1. SciPy, rowan and jaxlie agree.
# Versions: pyquaternion 0.9.9, ahrs 0.4.0, rowan 1.3.2, jaxlie 1.5.0, jax 0.12.0.1, scipy 1.17.1, numpy 2.4.6
# Output on 28 November 2026:
#   SciPy, yaw pitch roll: [30.0, 20.0, 10.0]
#   rowan, yaw pitch roll: [30.0, 20.0, 10.0]
#   jaxlie, yaw pitch roll: [30.0, 20.0, 10.0]
#   pyquaternion, yaw pitch roll: [28.5, 22.2, -1.1]
#   ahrs, roll pitch yaw, written and read: [-28.5, -22.2, 1.1]
set -eu
packages="pyquaternion==0.9.9 ahrs==0.4.0 rowan==1.3.2 jaxlie==1.5.0 jax==0.12.0.1 scipy==1.17.1 numpy==2.4.6"
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

import ahrs
import jax.numpy as jnp
import jaxlie
import numpy as np
import rowan
from pyquaternion import Quaternion
from scipy.spatial.transform import Rotation

# Yaw, pitch and roll about z, y' and x''
pose = Rotation.from_euler("ZYX", [30, 20, 10], degrees=True)
wxyz = pose.as_quat(scalar_first=True)
jax_pose = jaxlie.SO3(jnp.array(wxyz)).as_rpy_radians()


def degrees(angles):
    return np.rad2deg(np.array(angles, float)).round(1).tolist()


written = ahrs.DCM(rpy=np.deg2rad([10, 20, 30]))
seen = {
    "SciPy, yaw pitch roll": degrees(pose.as_euler("ZYX")),
    "rowan, yaw pitch roll": degrees(rowan.to_euler(wxyz)),
    "jaxlie, yaw pitch roll": degrees([jax_pose.yaw, jax_pose.pitch, jax_pose.roll]),
    "pyquaternion, yaw pitch roll": degrees(Quaternion(wxyz).yaw_pitch_roll),
    "ahrs, roll pitch yaw, written and read": degrees(written.to_rpy()),
}
for name, angles in seen.items():
    print(f"{name}: {angles}")

expected = {
    "SciPy, yaw pitch roll": [30.0, 20.0, 10.0],
    "rowan, yaw pitch roll": [30.0, 20.0, 10.0],
    "jaxlie, yaw pitch roll": [30.0, 20.0, 10.0],
    "pyquaternion, yaw pitch roll": [28.5, 22.2, -1.1],
    "ahrs, roll pitch yaw, written and read": [-28.5, -22.2, 1.1],
}
if seen != expected:
    sys.exit(f"CHANGED: expected {expected}")
print("As described.")
END
