#!/bin/sh
# Guess: A column of float64, formatted as NumPy, is float64, by the row as by the batch.
# What happens: A batch is float32, and so is a list in a row; a single number in a row is float64. A clock in seconds
#   since 1970 stands still for 128 seconds. pandas and a named dtype keep float64.
# Versions: datasets 5.2.0, numpy 2.4.6
# Output on 28 November 2026:
#   pandas: float64, 3000 times of 3000
#   numpy: float32, 3 times of 3000
#   numpy, dtype=float64: float64, 3000 times of 3000
#   one row, a number: float64, 0.1 s
#   one row, a list: float32, 0.0 s
set -eu
packages="datasets==5.2.0 numpy==2.4.6"
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

import datasets
import numpy as np

seconds = 1.79e9 + np.arange(3000) / 10
rows = datasets.Dataset.from_dict({"time": seconds, "stamps": seconds[:, None]})


def times(kind, **options):
    return np.asarray(rows.with_format(kind, **options)[:]["time"])


def look(values):
    return f"{values.dtype}, {len(np.unique(values))} times of 3000"


first = rows.with_format("numpy")[1]
seen = {
    "pandas": look(times("pandas")),
    "numpy": look(times("numpy")),
    "numpy, dtype=float64": look(times("numpy", dtype=np.float64)),
    "one row, a number": f'{first["time"].dtype}, {first["time"] - 1.79e9:.1f} s',
    "one row, a list": f'{first["stamps"].dtype}, {first["stamps"][0] - 1.79e9:.1f} s',
}
for name, value in seen.items():
    print(f"{name}: {value}")

expected = {
    "pandas": "float64, 3000 times of 3000",
    "numpy": "float32, 3 times of 3000",
    "numpy, dtype=float64": "float64, 3000 times of 3000",
    "one row, a number": "float64, 0.1 s",
    "one row, a list": "float32, 0.0 s",
}
if seen != expected:
    sys.exit(f"CHANGED: expected {expected}")
print("As described.")
END
