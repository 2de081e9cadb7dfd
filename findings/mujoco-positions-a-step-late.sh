#!/bin/sh
# Guess: After mj_step(), the joint's position, its sensor and the position of the hand are those of one moment.
# What happens: qpos, qvel and time are of the new moment; sensordata, xpos and site_xpos are of the one before. A
#   recording of both has them a step apart, here up to 11 cm, and even the sensor of a joint's position is not the
#   position beside it. mj_forward() brings them together.
# Versions: mujoco 4.0.0, numpy 2.4.6
# Output on 28 November 2026:
#   sensor is qpos: False
#   sensor is qpos of the step before: True
#   hand from qpos, cm off at most: 11.1
#   hand from qpos of the step before: 0.0
#   after mj_forward(), sensor is qpos: True
set -eu
packages="mujoco==4.0.0 numpy==2.4.6"
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

model = mujoco.MjModel.from_xml_string("""
<mujoco><option timestep="0.02"/>
  <worldbody><body><joint name="elbow" axis="0 1 0"/><geom size=".02" fromto="0 0 0 .5 0 0" type="capsule"/>
    <site name="hand" pos=".5 0 0"/></body></worldbody>
  <actuator><motor joint="elbow"/></actuator>
  <sensor><jointpos joint="elbow"/></sensor>
</mujoco>""")
data = mujoco.MjData(model)
rows = []
for _ in range(20):
    data.ctrl[0] = 1
    mujoco.mj_step(model, data)
    rows.append((data.qpos[0], data.sensordata[0], *data.site("hand").xpos))
qpos, sensor = (np.array([row[part] for row in rows]) for part in (0, 1))
hand = np.array([row[2:] for row in rows])


def centimetres(angles, points):
    there = 0.5 * np.stack([np.cos(angles), 0 * angles, -np.sin(angles)], 1)
    return round(float(100 * np.linalg.norm(there - points, axis=1).max()), 1)


seen = {
    "sensor is qpos": bool(np.allclose(sensor, qpos)),
    "sensor is qpos of the step before": bool(np.allclose(sensor[1:], qpos[:-1])),
    "hand from qpos, cm off at most": centimetres(qpos, hand),
    "hand from qpos of the step before": centimetres(qpos[:-1], hand[1:]),
}
mujoco.mj_forward(model, data)
seen["after mj_forward(), sensor is qpos"] = bool(np.isclose(data.sensordata[0], data.qpos[0]))
for name, value in seen.items():
    print(f"{name}: {value}")

expected = {
    "sensor is qpos": False,
    "sensor is qpos of the step before": True,
    "hand from qpos, cm off at most": 11.1,
    "hand from qpos of the step before": 0.0,
    "after mj_forward(), sensor is qpos": True,
}
if seen != expected:
    sys.exit(f"CHANGED: expected {expected}")
print("As described.")
END
