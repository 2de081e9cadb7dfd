#!/bin/sh
# Guess: A joint that stands still at 1.5 rad does so after resampling, and one that goes evenly from 0 to 1 begins at
#   0.
# What happens: decimate() gives 1.483 in every frame: its filter's ripple is there at rest, too. resample_poly() takes
#   what lies beyond the ends for 0: the first frame is 1.2. resample() takes the end for what was before the beginning:
#   the even joint starts at 0.2. Linear interpolation keeps both.
# Versions: scipy 1.17.1, numpy 2.4.6
# Output on 28 November 2026:
#   still, decimate by 2: first 1.483, middle 1.483, last 1.483
#   still, decimate by 3: first 1.483, middle 1.483, last 1.483
#   still, resample_poly 50 to 30 Hz: first 1.2, middle 1.5, last 1.586
#   still, resample: first 1.5, middle 1.5, last 1.5
#   still, linear: first 1.5, middle 1.5, last 1.5
#   even, resample: first 0.199, middle 0.5, last 1.058
#   even, linear: first 0.0, middle 0.503, last 1.0
set -eu
packages="scipy==1.17.1 numpy==2.4.6"
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

import numpy as np
from scipy import signal

still = np.full(300, 1.5)
even = np.linspace(0, 1, 300)


def look(values):
    return [round(float(value), 3) for value in (values[0], values[len(values) // 2], values[-1])]


def linear(values):
    return np.interp(np.linspace(0, 299, 180), np.arange(300), values)


seen = {
    "still, decimate by 2": look(signal.decimate(still, 2)),
    "still, decimate by 3": look(signal.decimate(still, 3)),
    "still, resample_poly 50 to 30 Hz": look(signal.resample_poly(still, 3, 5)),
    "still, resample": look(signal.resample(still, 180)),
    "still, linear": look(linear(still)),
    "even, resample": look(signal.resample(even, 180)),
    "even, linear": look(linear(even)),
}
for name, value in seen.items():
    print(f"{name}: first {value[0]}, middle {value[1]}, last {value[2]}")

expected = {
    "still, decimate by 2": [1.483, 1.483, 1.483],
    "still, decimate by 3": [1.483, 1.483, 1.483],
    "still, resample_poly 50 to 30 Hz": [1.2, 1.5, 1.586],
    "still, resample": [1.5, 1.5, 1.5],
    "still, linear": [1.5, 1.5, 1.5],
    "even, resample": [0.199, 0.5, 1.058],
    "even, linear": [0.0, 0.503, 1.0],
}
if seen != expected:
    sys.exit(f"CHANGED: expected {expected}")
print("As described.")
END
