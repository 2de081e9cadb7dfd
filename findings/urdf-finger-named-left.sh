#!/bin/sh
# Guess: All loaders of a URDF have its joints in the file's order, and none for a finger that mimics another.
# What happens: Pinocchio sorts the joints of a link by name: q has the left finger before the right. Its mimic=True
#   raises for a gripper whose left finger mimics the right, and loads it with the names swapped.
# Versions: pin 4.1.0, yourdfpy 0.0.60, mujoco 4.0.0, numpy 2.4.6
# Output on 28 November 2026:
#   MuJoCo: 3 numbers, ['turn', 'right', 'left']
#   yourdfpy: 2 numbers, ['turn', 'right']
#   Pinocchio: 4 numbers, ['turn', 'left', 'right']
#   Pinocchio, mimic=True: ValueError
#   Pinocchio, mimic=True, names swapped: 3 numbers, ['turn', 'left', 'right']
set -eu
packages="pin==4.1.0 yourdfpy==0.0.60 mujoco==4.0.0 numpy==2.4.6"
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
import io
import sys

import mujoco
import pinocchio
import yourdfpy

INERTIA = '<mass value="1"/><inertia ixx="1" iyy="1" izz="1" ixy="0" ixz="0" iyz="0"/>'
LINK = f'<link name="%s"><inertial>{INERTIA}</inertial></link>'
JOINT = """<joint name="%s" type="%s"><parent link="%s"/><child link="%s"/>
  <axis xyz="0 0 1"/><limit lower="0" upper="0.04" effort="1" velocity="1"/>%s</joint>"""


def gripper(first, second):
    links = LINK % "wrist" + LINK % "a" + LINK % "b"
    turn = JOINT % ("turn", "continuous", "base", "wrist", "")
    fingers = JOINT % (first, "prismatic", "wrist", "a", "")
    fingers += JOINT % (second, "prismatic", "wrist", "b", f'<mimic joint="{first}"/>')
    return f'<robot name="gripper"><link name="base"/>{links}{turn}{fingers}</robot>'


def pin(text, **options):
    try:
        model = pinocchio.buildModelFromXML(text, **options)
    except ValueError:
        return "ValueError"
    return f"{model.nq} numbers, {list(model.names)[1:]}"


text = gripper("right", "left")
model = mujoco.MjModel.from_xml_string(text)
joints = [model.joint(number).name for number in range(model.njnt)]
actuated = list(yourdfpy.URDF.load(io.StringIO(text)).actuated_joint_names)
seen = {
    "MuJoCo": f"{model.nq} numbers, {joints}",
    "yourdfpy": f"{len(actuated)} numbers, {actuated}",
    "Pinocchio": pin(text),
    "Pinocchio, mimic=True": pin(text, mimic=True),
    "Pinocchio, mimic=True, names swapped": pin(gripper("left", "right"), mimic=True),
}
for name, value in seen.items():
    print(f"{name}: {value}")

expected = {
    "MuJoCo": "3 numbers, ['turn', 'right', 'left']",
    "yourdfpy": "2 numbers, ['turn', 'right']",
    "Pinocchio": "4 numbers, ['turn', 'left', 'right']",
    "Pinocchio, mimic=True": "ValueError",
    "Pinocchio, mimic=True, names swapped": "3 numbers, ['turn', 'left', 'right']",
}
if seen != expected:
    sys.exit(f"CHANGED: expected {expected}")
print("As described.")
END
