#!/bin/sh
# Guess: perceptual hashes of two pictures that look the same are a few bits apart, of a covered lens none.
# What happens: phash and whash compare what little there is: two dark pictures whose noise is 0, 1 or 2 of 255 are 26
#   to 38 bits of 64 apart, more than two scenes may be, so a covered camera or a plain table shows much change. dhash
#   and average_hash give 0, but so they do for all even pictures. Red for green is 0 by all four.
# Versions: imagehash 4.3.2, pillow 12.3.0, PyWavelets 1.9.0, scipy 1.18.1, numpy 2.2.6
# Output on 29 November 2026:
#   phash: two dark pictures 28 to 38 bits apart, red and green 0
#   whash: two dark pictures 26 to 36 bits apart, red and green 0
#   dhash: two dark pictures 0 to 0 bits apart, red and green 0
#   average_hash: two dark pictures 0 to 0 bits apart, red and green 0
set -eu
packages="imagehash==4.3.2 pillow==12.3.0 PyWavelets==1.9.0 scipy==1.18.1 numpy==2.2.6"
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

import imagehash
import numpy as np
from PIL import Image

draw = np.random.default_rng(0)
HASHES = ("phash", "whash", "dhash", "average_hash")


def dark():
    """A covered lens: a camera's noise alone."""
    return Image.fromarray(draw.integers(0, 3, (120, 160, 3), np.uint8))


def plain(colour):
    return Image.fromarray(np.full((120, 160, 3), colour, np.uint8))


seen = {}
for name in HASHES:
    hashed = getattr(imagehash, name)
    apart = [int(hashed(dark()) - hashed(dark())) for _ in range(10)]
    red_green = int(hashed(plain((200, 0, 0))) - hashed(plain((0, 200, 0))))
    seen[name] = [min(apart), max(apart), red_green]
    print(f"{name}: two dark pictures {min(apart)} to {max(apart)} bits apart, red and green {red_green}")

expected = {
    "phash": [28, 38, 0],
    "whash": [26, 36, 0],
    "dhash": [0, 0, 0],
    "average_hash": [0, 0, 0],
}
if seen != expected:
    sys.exit(f"CHANGED: expected {expected}")
print("As described.")
END
