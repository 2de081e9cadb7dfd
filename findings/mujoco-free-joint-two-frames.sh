#!/bin/sh
# Guess: The six velocities of a free body are given in one frame, in MuJoCo as in Pinocchio.
# What happens: In MuJoCo's qvel the first three are along the world's axes and the last three about the body's own; in
#   Pinocchio all six are along the body's. The same six numbers move a body that is turned by 90 degrees to another
#   place.
# Versions: mujoco 4.0.0, pin 4.1.0, scipy 1.17.1, numpy 2.4.6
# Output on 28 November 2026:
#   MuJoCo, moves along the world's: [1, 0, 0]
#   MuJoCo, turns about the world's: [0, 1, 0]
#   Pinocchio, moves along the world's: [0, 1, 0]
#   Pinocchio, turns about the world's: [0, 1, 0]
set -eu
packages="mujoco==4.0.0 pin==4.1.0 scipy==1.17.1 numpy==2.4.6"
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

import mujoco
import numpy as np
import pinocchio
from scipy.spatial.transform import Rotation

SECONDS = 0.001
VELOCITY = np.array([1.0, 0, 0, 1, 0, 0])  # 1 m/s along x, 1 rad/s about x
QUARTER = Rotation.from_euler("z", 90, degrees=True)


def rates(place, turn):
    """Where a body goes that begins at 0, turned by 90 degrees about z: per second, in the world's frame."""
    about = (turn * QUARTER.inv()).as_rotvec()
    return [np.rint(change / SECONDS).astype(int).tolist() for change in (place, about)]


model = mujoco.MjModel.from_xml_string("""
<mujoco><option gravity="0 0 0" timestep="0.001"/>
  <worldbody><body><freejoint/><geom size=".1"/></body></worldbody>
</mujoco>""")
data = mujoco.MjData(model)
data.qpos[3:] = QUARTER.as_quat(scalar_first=True)
data.qvel = VELOCITY
mujoco.mj_step(model, data)
in_mujoco = rates(data.qpos[:3], Rotation.from_quat(data.qpos[3:], scalar_first=True))

model = pinocchio.Model()
model.addJoint(0, pinocchio.JointModelFreeFlyer(), pinocchio.SE3.Identity(), "base")
start = np.concatenate([np.zeros(3), QUARTER.as_quat()])
end = pinocchio.integrate(model, start, VELOCITY * SECONDS)
in_pinocchio = rates(end[:3], Rotation.from_quat(end[3:]))

seen = {}
for name, (moves, turns) in (("MuJoCo", in_mujoco), ("Pinocchio", in_pinocchio)):
    seen[f"{name}, moves along the world's"] = moves
    seen[f"{name}, turns about the world's"] = turns
for name, value in seen.items():
    print(f"{name}: {value}")

expected = {
    "MuJoCo, moves along the world's": [1, 0, 0],
    "MuJoCo, turns about the world's": [0, 1, 0],
    "Pinocchio, moves along the world's": [0, 1, 0],
    "Pinocchio, turns about the world's": [0, 1, 0],
}
if seen != expected:
    sys.exit(f"CHANGED: expected {expected}")
print("As described.")
END
