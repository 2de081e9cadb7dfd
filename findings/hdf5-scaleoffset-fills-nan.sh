#!/bin/sh
# Guess: HDF5's scale-offset filter, asked for two decimals, keeps NaN, or refuses it.
# What happens: NaN becomes the smallest number of its chunk: a gap in a force sensor's rows reads as a force that was
#   measured, and as another one for another size of chunks. A whole number that needs more bits than were given becomes
#   another. Nothing warns of it.
# Versions: h5py 3.16.0, numpy 2.4.6
# Output on 28 November 2026:
#   force: [7.25, nan, 9.5, 3.75, nan, 5.0]
#   stored, chunks of 6: [7.25, 3.75, 9.5, 3.75, 3.75, 5.0]
#   stored, chunks of 3: [7.25, 7.25, 9.5, 3.75, 3.75, 5.0]
#   counts: [3, 12, 100, 7]
#   stored, four bits: [3, 12, 4, 7]
set -eu
packages="h5py==3.16.0 numpy==2.4.6"
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

force = np.array([7.25, np.nan, 9.5, 3.75, np.nan, 5.0])
counts = np.array([3, 12, 100, 7])


def stored(values, chunk, bits):
    with h5py.File("run.h5", "w") as file:
        file.create_dataset("values", data=values, chunks=(chunk,), scaleoffset=bits)
    with h5py.File("run.h5") as file:
        return str(file["values"][:].tolist())


seen = {
    "force": str(force.tolist()),
    "stored, chunks of 6": stored(force, 6, 2),
    "stored, chunks of 3": stored(force, 3, 2),
    "counts": str(counts.tolist()),
    "stored, four bits": stored(counts, 4, 4),
}
for name, value in seen.items():
    print(f"{name}: {value}")

expected = {
    "force": "[7.25, nan, 9.5, 3.75, nan, 5.0]",
    "stored, chunks of 6": "[7.25, 3.75, 9.5, 3.75, 3.75, 5.0]",
    "stored, chunks of 3": "[7.25, 7.25, 9.5, 3.75, 3.75, 5.0]",
    "counts": "[3, 12, 100, 7]",
    "stored, four bits": "[3, 12, 4, 7]",
}
if seen != expected:
    sys.exit(f"CHANGED: expected {expected}")
print("As described.")
END
