#!/bin/sh
# Guess: a depth camera's holes, 0 or NaN, are holes when LeRobot has stored them; far points are far.
# What happens: its codec of depth puts all that is nearer than 10 mm at 10 mm, and all beyond 10 m at 10 m: a hole is
#   a surface before the lens, and NaN, too. Nothing in the dataset says where holes were.
# Versions: lerobot[dataset] 0.6.1, torch 2.11.0, torchvision 0.26.0, numpy 2.2.6
# Output on 29 November 2026:
#   uint16 of [0, 5, 50, 500, 9000, 12000, 65535] mm: [10, 10, 49, 500, 9000, 10000, 10000]
#   float32 of ['0', 'nan', '0.05', '0.5', '9', '12', 'inf'] m: [10, 10, 49, 500, 9000, 10000, 10000]
set -eu
packages="lerobot[dataset]==0.6.1 torch==2.11.0 torchvision==0.26.0 numpy==2.2.6"
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
from lerobot.datasets.depth_utils import dequantize_depth, quantize_depth

warnings.simplefilter("ignore")
millimetres = np.array([[0, 5, 50, 500, 9000, 12000, 65535]], np.uint16)
metres = np.array([[0, np.nan, 0.05, 0.5, 9, 12, np.inf]], np.float32)


def stored_and_read(depth):
    """Depth in millimetres as it comes back from the codec, without a video in between."""
    codes = quantize_depth(depth, video_backend=None)
    return [round(float(value)) for value in np.ravel(dequantize_depth(codes, output_tensor=False))]


seen = {"uint16": stored_and_read(millimetres), "float32": stored_and_read(metres)}
print(f"uint16 of {millimetres[0].tolist()} mm: {seen['uint16']}")
print(f"float32 of {[f'{m:g}' for m in metres[0]]} m: {seen['float32']}")

expected = {
    "uint16": [10, 10, 49, 500, 9000, 10000, 10000],
    "float32": [10, 10, 49, 500, 9000, 10000, 10000],
}
if seen != expected:
    sys.exit(f"CHANGED: expected {expected}")
print("As described.")
END
