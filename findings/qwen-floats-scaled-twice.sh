#!/bin/sh
# Guess: Qwen's processor takes pictures as floats of 0 to 1 for what they are, or refuses them.
# What happens: it divides them by 255 once more: a white picture is all but black, -1.47 for 2.15. LeRobot and
#   torchvision hand pictures over so. The processors of pictures and of videos do it alike; neither raises nor warns.
# Versions: transformers 5.23.0, tokenizers 0.23.3, torch 2.11.0, torchvision 0.26.0, numpy 2.2.6
# Output on 29 November 2026:
#   white as bytes: picture 2.15, video 1.0
#   white as float array: picture -1.47, video -0.99
#   white as float tensor: picture -1.47, video -0.99
#   warned of the scale: False
set -eu
packages="transformers==5.23.0 tokenizers==0.23.3 torch==2.11.0 torchvision==0.26.0 numpy==2.2.6"
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
import contextlib
import io
import logging as logs
import sys

import numpy as np
import torch
from transformers import Qwen2VLImageProcessor, Qwen3VLVideoProcessor
from transformers.utils import logging

told = io.StringIO()
logging.disable_default_handler()
logs.getLogger().addHandler(logs.StreamHandler(told))
white = np.full((64, 64, 3), 255, np.uint8)
given = {
    "bytes": white,
    "float array": (white / 255).astype(np.float32),
    "float tensor": torch.from_numpy(white).permute(2, 0, 1).float() / 255,
}
pictures, videos = Qwen2VLImageProcessor(), Qwen3VLVideoProcessor()
seen = {}
with contextlib.redirect_stderr(told):
    for name, picture in given.items():
        by_picture = float(pictures(images=[picture], return_tensors="pt")["pixel_values"].max())
        stack = torch.stack if isinstance(picture, torch.Tensor) else np.stack
        video = videos(videos=[stack([picture] * 4)], do_sample_frames=False, return_tensors="pt")
        seen[name] = [round(by_picture, 2), round(float(video["pixel_values_videos"].max()), 2)]
        print(f"white as {name}: picture {seen[name][0]}, video {seen[name][1]}")
seen["warned of the scale"] = any(word in told.getvalue() for word in ("scale", "range"))
print(f"warned of the scale: {seen['warned of the scale']}")

expected = {
    "bytes": [2.15, 1.0],
    "float array": [-1.47, -0.99],
    "float tensor": [-1.47, -0.99],
    "warned of the scale": False,
}
if seen != expected:
    sys.exit(f"CHANGED: expected {expected}")
print("As described.")
END
