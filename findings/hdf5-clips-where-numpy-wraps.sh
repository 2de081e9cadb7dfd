#!/bin/sh
# Guess: A number that does not fit its dataset's type raises when it is written, or wraps around as `astype` does.
# What happens: HDF5 clips, h5py says nothing: -1 and 300 in uint8 are 0 and 255, a NaN in int16 is 0, 1e9 is 32,767;
#   NumPy makes 255 and 44 of the first two. The same when a dataset is read by `.astype`, so that
#   `dataset.astype(t)[:]` and `dataset[:].astype(t)` are different numbers.
# Versions: h5py 3.16.0, numpy 2.5.5
# Output on 30 November 2026:
#   written to uint8: [0, 255, 7]
#   written to int16: [0, 32767, -2]
#   read as uint8 by h5py: [0, 255, 7]
#   read, then uint8 by NumPy: [255, 44, 7]
set -eu
packages="h5py==3.16.0 numpy==2.5.5"
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

import h5py
import numpy as np

GRIPPER = np.array([-1, 300, 7], dtype="i4")
FORCE = np.array([np.nan, 1e9, -2.7])

with h5py.File("episode.hdf5", "w") as file:
    as_bytes = file.create_dataset("bytes", (3,), "u1")
    as_bytes[:] = GRIPPER
    as_halves = file.create_dataset("halves", (3,), "i2")
    as_halves[:] = FORCE
    raw = file.create_dataset("raw", data=GRIPPER)
    seen = {
        "written to uint8": as_bytes[:].tolist(),
        "written to int16": as_halves[:].tolist(),
        "read as uint8 by h5py": raw.astype("u1")[:].tolist(),
        "read, then uint8 by NumPy": raw[:].astype("u1").tolist(),
    }

expected = {
    "written to uint8": [0, 255, 7],
    "written to int16": [0, 32767, -2],
    "read as uint8 by h5py": [0, 255, 7],
    "read, then uint8 by NumPy": [255, 44, 7],
}

for name, value in seen.items():
    print(f"{name}: {value}")
if seen != expected:
    sys.exit(f"CHANGED: expected {expected}")
print("As described.")
END
