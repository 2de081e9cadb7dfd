#!/bin/sh
# Guess: an episode appended to a Zarr store with consolidated metadata is there when the store is opened again.
# What happens: append() changes the array's own metadata alone. The store opens with its old length, and the next
#   append overwrites the episode before it. Nothing warns of it.
# Versions: zarr 3.4.2, numpy 2.2.6
# Output on 27 November 2026:
#   format 2: rows after 10 + 6: 10
#   format 2: stored after 10 + 6 + 2: [1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 3, 3]
#   format 3: rows after 10 + 6: 10
#   format 3: stored after 10 + 6 + 2: [1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 3, 3]
set -eu
packages="zarr==3.4.2 numpy==2.2.6"
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
import zarr

warnings.simplefilter("ignore")  # zarr's own: consolidated metadata are not in format 3's specification
seen = {}
for version in (2, 3):
    path = f"buffer{version}.zarr"
    group = zarr.open_group(path, mode="w", zarr_format=version)
    group.create_array("action", shape=(10, 7), chunks=(4, 7), dtype="f4")[:] = 1
    zarr.consolidate_metadata(path)

    zarr.open_group(path, mode="r+")["action"].append(np.full((6, 7), 2, "f4"))
    rows = zarr.open_group(path, mode="r")["action"].shape[0]
    zarr.open_group(path, mode="r+")["action"].append(np.full((2, 7), 3, "f4"))
    stored = zarr.open_group(path, mode="r", use_consolidated=False)["action"][:, 0]
    seen[f"format {version}: rows after 10 + 6"] = rows
    seen[f"format {version}: stored after 10 + 6 + 2"] = [int(value) for value in stored]
for name, value in seen.items():
    print(f"{name}: {value}")

expected = {}
for version in (2, 3):
    expected[f"format {version}: rows after 10 + 6"] = 10
    expected[f"format {version}: stored after 10 + 6 + 2"] = [1] * 10 + [3] * 2
if seen != expected:
    sys.exit(f"CHANGED: expected {expected}")
print("As described.")
END
