#!/bin/sh
# Guess: a filter of Zarr that stores differences gives back what was stored: one NaN is one NaN.
# What happens: numcodecs' Delta sums the differences up again, so one NaN makes all numbers behind it in its chunk
#   NaN, of other joints, too: 3,428 of 7,000, in Zarr's formats 2 and 3. The other numbers come back up to 3e-6 beside
#   themselves. Nothing warns of it.
# Versions: zarr 3.4.2, numcodecs 0.17.1, numpy 2.2.6
# Output on 29 November 2026:
#   format 2: NaN stored 1, read 3428; others differ: True
#   format 3: NaN stored 1, read 3428; others differ: True
set -eu
packages="zarr==3.4.2 numcodecs==0.17.1 numpy==2.2.6"
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

import numcodecs
import numpy as np
import zarr

warnings.simplefilter("ignore")
from zarr.codecs import numcodecs as codecs

states = np.random.default_rng(0).uniform(-3, 3, (1000, 7)).astype(np.float32)
states[10, 2] = np.nan
filters = {2: numcodecs.Delta(dtype="<f4"), 3: codecs.Delta(dtype="<f4")}

seen = {}
for number, delta in filters.items():
    store = zarr.storage.MemoryStore()
    array = zarr.create_array(
        store, shape=states.shape, chunks=(500, 7), dtype="float32", zarr_format=number, filters=[delta]
    )
    array[:] = states
    read = array[:]
    seen[number] = [int(np.isnan(states).sum()), int(np.isnan(read).sum()), bool(np.nanmax(abs(read - states)))]
    print(f"format {number}: NaN stored {seen[number][0]}, read {seen[number][1]}; others differ: {seen[number][2]}")

expected = {
    2: [1, 3428, True],
    3: [1, 3428, True],
}
if seen != expected:
    sys.exit(f"CHANGED: expected {expected}")
print("As described.")
END
