#!/bin/sh
# Guess: `interpolate()` fills the gaps between judged frames and leaves those before the first and behind the last.
# What happens: pandas leaves the head and fills the tail with the last value, by "linear" and by "time"; a run whose
#   end nobody judged stays at 0.5, and looks judged. Its "slinear", limit_area="inside", Polars and xarray leave
#   both.
# Versions: pandas 3.1.1, polars 2.1.0, xarray 2026.9.0, scipy 1.18.1, numpy 2.4.6
# Output on 29 November 2026:
#   pandas: [None, 0.0, 0.25, 0.5, 0.5, 0.5]
#   pandas, "time": [None, 0.0, 0.25, 0.5, 0.5, 0.5]
#   pandas, "slinear": [None, 0.0, 0.25, 0.5, None, None]
#   pandas, limit_area="inside": [None, 0.0, 0.25, 0.5, None, None]
#   Polars: [None, 0.0, 0.25, 0.5, None, None]
#   xarray: [None, 0.0, 0.25, 0.5, None, None]
set -eu
packages="pandas==3.1.1 polars==2.1.0 xarray==2026.9.0 scipy==1.18.1 numpy==2.4.6"
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

import pandas as pd
import polars as pl
import xarray as xr

JUDGED = [None, 0.0, None, 0.5, None, None]
in_pandas = pd.Series(JUDGED, pd.to_datetime(range(6), unit="s"), dtype=float)
in_xarray = xr.DataArray(in_pandas.to_numpy(), dims="frame")
values = {
    "pandas": in_pandas.interpolate(),
    'pandas, "time"': in_pandas.interpolate("time"),
    'pandas, "slinear"': in_pandas.interpolate("slinear"),
    'pandas, limit_area="inside"': in_pandas.interpolate(limit_area="inside"),
    "Polars": pl.Series(JUDGED).interpolate(),
    "xarray": in_xarray.interpolate_na("frame"),
}
seen = {}
for name, value in values.items():
    seen[name] = [None if number != number else number for number in pd.Series(list(value), dtype=float).tolist()]
    print(f"{name}: {seen[name]}")

expected = {
    "pandas": [None, 0.0, 0.25, 0.5, 0.5, 0.5],
    'pandas, "time"': [None, 0.0, 0.25, 0.5, 0.5, 0.5],
    'pandas, "slinear"': [None, 0.0, 0.25, 0.5, None, None],
    'pandas, limit_area="inside"': [None, 0.0, 0.25, 0.5, None, None],
    "Polars": [None, 0.0, 0.25, 0.5, None, None],
    "xarray": [None, 0.0, 0.25, 0.5, None, None],
}
if seen != expected:
    sys.exit(f"CHANGED: expected {expected}")
print("As described.")
END
