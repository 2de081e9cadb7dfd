#!/bin/sh
# Guess: a transform of a sample works on its pictures, on all of them, and leaves the robot's state alone.
# What happens: of plain tensors it works on the first alone, whatever that is. Of two cameras one is mirrored and the
#   other not; with the state first in the dict, the seven joints are put in reverse and no picture is mirrored. Only
#   tv_tensors.Image anywhere in the sample makes it leave plain tensors alone.
# Versions: torchvision 0.26.0, torch 2.11.0, numpy 2.2.6
# Output on 28 November 2026:
#   two cameras: mirrored ['left']
#   state first: mirrored ['state']
#   tv_tensors: mirrored ['left', 'right']
#   one tv_tensor: mirrored ['left']
set -eu
packages="torchvision==0.26.0 torch==2.11.0 numpy==2.2.6"
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
from torchvision import tv_tensors
from torchvision.transforms import v2

picture = torch.arange(12, dtype=torch.float32).reshape(1, 3, 4)
state = torch.tensor([0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7])
image = tv_tensors.Image(picture)
samples = {
    "two cameras": {"left": picture, "right": picture, "state": state},
    "state first": {"state": state, "left": picture, "right": picture},
    "tv_tensors": {"state": state, "left": image, "right": image},
    "one tv_tensor": {"state": state, "left": image, "right": picture},
}


def mirrored(sample):
    flipped = v2.RandomHorizontalFlip(p=1)(sample)
    return [name for name in sample if torch.equal(flipped[name], sample[name].flip(-1))]


seen = {name: mirrored(sample) for name, sample in samples.items()}
for name, value in seen.items():
    print(f"{name}: mirrored {value}")

expected = {
    "two cameras": ["left"],
    "state first": ["state"],
    "tv_tensors": ["left", "right"],
    "one tv_tensor": ["left"],
}
if seen != expected:
    sys.exit(f"CHANGED: expected {expected}")
print("As described.")
END
