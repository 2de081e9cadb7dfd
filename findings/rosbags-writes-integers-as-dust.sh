#!/bin/sh
# Guess: rosbags casts an array of whole numbers, given for a float64[] of a ROS message, or refuses it, as it does
#   float32.
# What happens: arrays of eight bytes a number are written as they lie: joints at 1 and 2 are at 5e-324 and 1e-323, and
#   doubles in the other byte order, as some HDF5 files have them, at 3e-319. Arrays of other sizes raise. Nothing
#   warns of it.
# Versions: rosbags 0.11.9, numpy 2.2.6
# Output on 29 November 2026:
#   positions 1 and 2 as float64: ['1e+00', '2e+00']
#   positions 1 and 2 as float32: ValueError
#   positions 1 and 2 as int64: ['5e-324', '1e-323']
#   positions 1 and 2 as float64, big-endian: ['3e-319', '3e-322']
set -eu
packages="rosbags==0.11.9 numpy==2.2.6"
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
from rosbags.typesys import Stores, get_typestore

TYPE = "sensor_msgs/msg/JointState"
store = get_typestore(Stores.ROS2_HUMBLE)
header = store.types["std_msgs/msg/Header"](
    stamp=store.types["builtin_interfaces/msg/Time"](sec=1, nanosec=0), frame_id=""
)
positions = {
    "float64": np.array([1.0, 2.0]),
    "float32": np.array([1.0, 2.0], np.float32),
    "int64": np.array([1, 2]),
    "float64, big-endian": np.array([1.0, 2.0], ">f8"),
}
seen = {}
for name, position in positions.items():
    none = np.array([])
    message = store.types[TYPE](header=header, name=["a", "b"], position=position, velocity=none, effort=none)
    try:
        written = store.serialize_cdr(message, TYPE)
        read = store.deserialize_cdr(written, TYPE).position
        seen[name] = [f"{value:.0e}" for value in read]
    except ValueError:
        seen[name] = "ValueError"
    print(f"positions 1 and 2 as {name}: {seen[name]}")

expected = {
    "float64": ["1e+00", "2e+00"],
    "float32": "ValueError",
    "int64": ["5e-324", "1e-323"],
    "float64, big-endian": ["3e-319", "3e-322"],
}
if seen != expected:
    sys.exit(f"CHANGED: expected {expected}")
print("As described.")
END
