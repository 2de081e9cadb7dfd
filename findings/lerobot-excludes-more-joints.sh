#!/bin/sh
# Guess: a relative-action step that excludes `joint_1` keeps that joint absolute, and makes the others relative.
# What happens: LeRobot excludes what has the text anywhere in its name: of joint_1 to joint_12, joint_10, joint_11 and
#   joint_12 stay absolute, too; and by the default of pi0.5, "gripper", so does `wrist_gripper_mount`. Nothing warns
#   of it.
# Versions: lerobot 0.6.1, torch 2.11.0, torchvision 0.26.0, numpy 2.2.6
# Output on 29 November 2026:
#   joint_1 excluded: absolute joint_1, joint_10, joint_11, joint_12
#   gripper excluded: absolute wrist_gripper_mount, gripper
set -eu
packages="lerobot==0.6.1 torch==2.11.0 torchvision==0.26.0 numpy==2.2.6"
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

import torch
from lerobot.processor import RelativeActionsProcessorStep, TransitionKey

STATE = "observation.state"
names = [f"joint_{number}" for number in range(1, 13)]
arms = ["shoulder", "wrist_gripper_mount", "gripper"]


def still_absolute(names, excluded):
    """The joints that stay as they are, where state and action are 1 for all."""
    step = RelativeActionsProcessorStep(enabled=True, exclude_joints=excluded, action_names=names)
    ones = torch.ones(1, len(names))
    made = step({TransitionKey.OBSERVATION: {STATE: ones}, TransitionKey.ACTION: ones.clone()})
    return [name for name, value in zip(names, made[TransitionKey.ACTION][0].tolist(), strict=True) if value == 1]


seen = {"joint_1": still_absolute(names, ["joint_1"]), "gripper": still_absolute(arms, ["gripper"])}
for name, joints in seen.items():
    print(f"{name} excluded: absolute {', '.join(joints)}")

expected = {
    "joint_1": ["joint_1", "joint_10", "joint_11", "joint_12"],
    "gripper": ["wrist_gripper_mount", "gripper"],
}
if seen != expected:
    sys.exit(f"CHANGED: expected {expected}")
print("As described.")
END
