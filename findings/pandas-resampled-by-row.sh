#!/bin/sh
# Guess: `resample("30ms").interpolate()` of a joint at 25 Hz reads it at the new times, between the two samples
#   around each.
# What happens: old and new rows are sorted together and filled as if all were equally far apart: "linear" looks at no
#   times, though the index has them. A joint that moves evenly from 0 to 1 is 0.025 off at 30 ms. interpolate("time")
#   gives it right; so do NumPy and Polars.
# Versions: pandas 3.1.1, polars 2.1.0, numpy 2.4.6
# Output on 29 November 2026:
#   resample().interpolate(): at 30, 60, 90 ms [0.05, 0.15, 0.25]
#   resample().interpolate("time"): at 30, 60, 90 ms [0.075, 0.15, 0.225]
#   numpy.interp: at 30, 60, 90 ms [0.075, 0.15, 0.225]
#   Polars, interpolate_by: at 30, 60, 90 ms [0.075, 0.15, 0.225]
#   true: [0.075, 0.15, 0.225]
set -eu
packages="pandas==3.1.1 polars==2.1.0 numpy==2.4.6"
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
import pandas as pd
import polars as pl

old = np.arange(11) * 40
new = np.arange(0, 400, 30)
joint = pd.Series(old / 400, pd.to_datetime(old, unit="ms"))
rows = pl.DataFrame({"ms": np.union1d(old, new)})
rows = rows.join(pl.DataFrame({"ms": old, "joint": old / 400}), on="ms", how="left")
by_time = rows.with_columns(pl.col("joint").interpolate_by("ms"))
values = {
    "resample().interpolate()": joint.resample("30ms").interpolate().to_numpy(),
    'resample().interpolate("time")': joint.resample("30ms").interpolate("time").to_numpy(),
    "numpy.interp": np.interp(new, old, old / 400),
    "Polars, interpolate_by": by_time.filter(pl.col("ms").is_in(new.tolist()))["joint"].to_numpy(),
}
seen = {}
for name, value in values.items():
    seen[name] = [round(float(number), 3) for number in value[1:4]]
    print(f"{name}: at 30, 60, 90 ms {seen[name]}")
print(f"true: {(new[1:4] / 400).tolist()}")

expected = {
    "resample().interpolate()": [0.05, 0.15, 0.25],
    'resample().interpolate("time")': [0.075, 0.15, 0.225],
    "numpy.interp": [0.075, 0.15, 0.225],
    "Polars, interpolate_by": [0.075, 0.15, 0.225],
}
if seen != expected:
    sys.exit(f"CHANGED: expected {expected}")
print("As described.")
END
