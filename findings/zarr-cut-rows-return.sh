#!/bin/sh
# Guess: rows cut off an array by resize() are gone. Grown again, the array has its fill value there, as in HDF5.
# What happens: Zarr deletes whole chunks alone. The rows of a chunk that was cut in part come back when the array
#   grows: what was recorded in a dropped episode, as if it belonged to the next one. h5py gives zeros.
# Versions: zarr 3.4.2, h5py 3.16.0, numpy 2.2.6
# Output on 27 November 2026:
#   zarr: 12 rows, cut to 6, grown to 12: [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 0, 0]
#   h5py: 12 rows, cut to 6, grown to 12: [1, 2, 3, 4, 5, 6, 0, 0, 0, 0, 0, 0]
set -eu
packages="zarr==3.4.2 h5py==3.16.0 numpy==2.2.6"
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
import zarr

rows = np.arange(1, 13)
array = zarr.create_array("a.zarr", shape=(12,), chunks=(5,), dtype="i4", fill_value=0)
file = h5py.File("a.h5", "w")
dataset = file.create_dataset("a", shape=(12,), chunks=(5,), maxshape=(None,), dtype="i4", fillvalue=0)
seen = {}
for name, stored in (("zarr", array), ("h5py", dataset)):
    stored[:] = rows
    stored.resize((6,))
    stored.resize((12,))
    seen[name] = [int(value) for value in stored[:]]
    print(f"{name}: 12 rows, cut to 6, grown to 12: {seen[name]}")

expected = {
    "zarr": [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 0, 0],
    "h5py": [1, 2, 3, 4, 5, 6, 0, 0, 0, 0, 0, 0],
}
if seen != expected:
    sys.exit(f"CHANGED: expected {expected}")
print("As described.")
END
