#!/bin/sh
# Guess: Pillow turns a depth picture of 16 bits as it turns a picture of 8: a wall at 1,000 mm, turned by 10 degrees,
#   is at 1,000 mm.
# What happens: with BILINEAR or BICUBIC, rotate() and transform() mix single bytes: the wall is at 3 to 231 mm,
#   nearly 200 depths in a patch of 16 by 16. NEAREST is right, so is resize() by any filter, and so is the same
#   picture as 32 bits. torchvision's rotate and affine, of a Pillow picture, do likewise. Nothing warns of it.
# Versions: pillow 13.0.0, torchvision 0.26.0, torch 2.11.0, numpy 2.2.6
# Output on 30 November 2026:
#   rotate, nearest: 1000 to 1000 mm
#   rotate, bilinear: 3 to 231 mm
#   rotate, bicubic: 3 to 231 mm
#   rotate, bilinear, 32 bits: 1000 to 1000 mm
#   shifted by half a pixel, bilinear: 117 to 117 mm
#   resize, bilinear: 1000 to 1000 mm
#   torchvision's rotate, bilinear: 3 to 231 mm
#   warnings: []
set -eu
packages="pillow==13.0.0 torchvision==0.26.0 torch==2.11.0 numpy==2.2.6"
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

import numpy as np
from PIL import Image
from torchvision.transforms import InterpolationMode
from torchvision.transforms.v2 import functional

said = []
warnings.showwarning = lambda *args, **_: said.append(str(args[0]))
wall = Image.fromarray(np.full((64, 64), 1000, np.uint16))
ways = {
    "rotate, nearest": wall.rotate(10, Image.Resampling.NEAREST),
    "rotate, bilinear": wall.rotate(10, Image.Resampling.BILINEAR),
    "rotate, bicubic": wall.rotate(10, Image.Resampling.BICUBIC),
    "rotate, bilinear, 32 bits": wall.convert("I").rotate(10, Image.Resampling.BILINEAR),
    "shifted by half a pixel, bilinear": wall.transform(
        wall.size, Image.Transform.AFFINE, (1, 0, 0.5, 0, 1, 0), Image.Resampling.BILINEAR
    ),
    "resize, bilinear": wall.resize((96, 96), Image.Resampling.BILINEAR),
    "torchvision's rotate, bilinear": functional.rotate(wall, 10, InterpolationMode.BILINEAR),
}
seen = {}
for name, picture in ways.items():
    middle = np.asarray(picture)[24:40, 24:40]
    seen[name] = (int(middle.min()), int(middle.max()))
    print(f"{name}: {seen[name][0]} to {seen[name][1]} mm")
print(f"warnings: {said}")

expected = dict.fromkeys(ways, (1000, 1000)) | {
    "rotate, bilinear": (3, 231),
    "rotate, bicubic": (3, 231),
    "shifted by half a pixel, bilinear": (117, 117),
    "torchvision's rotate, bilinear": (3, 231),
}
if seen != expected or said:
    sys.exit(f"CHANGED: expected {expected}")
print("As described.")
END
