#!/bin/sh
# Guess: Reading an HDF5 dataset that is put together from one file per episode raises an error when one of the files is
#   gone.
# What happens: It reads zeros where the episode was, and its length is the same; nothing warns of it. The caller must
#   look for the files that virtual_sources() names. A file that is there and too short does raise, and so does an
#   external link to the lost one.
# Versions: h5py 3.16.0, numpy 2.4.6
# Output on 28 November 2026:
#   all files: [1.0, 1.0, 2.0, 2.0, 3.0, 3.0]
#   one file gone: [1.0, 1.0, 0.0, 0.0, 3.0, 3.0]
#   an external link to it: KeyError
#   the file again, shorter: OSError
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
import os
import sys

import h5py
import numpy as np


def write(number, length):
    with h5py.File(f"episode{number}.h5", "w") as file:
        file["qpos"] = np.full((length, 1), number, np.float64)


def read(path):
    try:
        with h5py.File("all.h5") as file:
            return file[path][:, 0].tolist()
    except (KeyError, OSError) as error:
        return type(error).__name__


layout = h5py.VirtualLayout((6, 1), np.float64)
for number in (1, 2, 3):
    write(number, 2)
    rows = slice(2 * number - 2, 2 * number)
    layout[rows] = h5py.VirtualSource(f"episode{number}.h5", "qpos", (2, 1))
with h5py.File("all.h5", "w") as file:
    file.create_virtual_dataset("qpos", layout)
    file["episode2"] = h5py.ExternalLink("episode2.h5", "/")

seen = {"all files": read("qpos")}
os.remove("episode2.h5")
seen["one file gone"] = read("qpos")
seen["an external link to it"] = read("episode2/qpos")
write(2, 1)
seen["the file again, shorter"] = read("qpos")
for name, value in seen.items():
    print(f"{name}: {value}")

expected = {
    "all files": [1.0, 1.0, 2.0, 2.0, 3.0, 3.0],
    "one file gone": [1.0, 1.0, 0.0, 0.0, 3.0, 3.0],
    "an external link to it": "KeyError",
    "the file again, shorter": "OSError",
}
if seen != expected:
    sys.exit(f"CHANGED: expected {expected}")
print("As described.")
END
