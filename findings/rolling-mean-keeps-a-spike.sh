#!/bin/sh
# Guess: A moving mean over five frames has forgotten a sensor's spike five frames later.
# What happens: SciPy's uniform_filter1d and bottleneck's move_mean take the old value out of a running sum: after one
#   infinite force, all that follow in the run are NaN, and after a spike of 1e18 all are 0, in bottleneck after one
#   of 1e8 in float32, too. pandas, Polars and xarray give 0.1 again. Nothing warns of it.
# Versions: scipy 1.18.1, bottleneck 1.6.0, pandas 3.1.1, polars 2.1.0, xarray 2026.9.0, numpy 2.4.6
# Output on 30 November 2026:
#   SciPy: 190 frames behind a spike of 1e8, 1e18, infinite: 0.1, 0.0, nan
#   bottleneck: 190 frames behind a spike of 1e8, 1e18, infinite: 0.0, 0.0, nan
#   pandas: 190 frames behind a spike of 1e8, 1e18, infinite: 0.1, 0.1, 0.1
#   Polars: 190 frames behind a spike of 1e8, 1e18, infinite: 0.1, 0.1, 0.1
#   xarray: 190 frames behind a spike of 1e8, 1e18, infinite: 0.1, 0.1, 0.1
#   warnings: []
set -eu
packages="scipy==1.18.1 bottleneck==1.6.0 pandas==3.1.1 polars==2.1.0 xarray==2026.9.0 numpy==2.4.6"
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

import bottleneck
import numpy as np
import pandas as pd
import polars as pl
import xarray as xr
from scipy.ndimage import uniform_filter1d

said = []
warnings.showwarning = lambda *args, **_: said.append(str(args[0]))
WAYS = {
    "SciPy": lambda force: uniform_filter1d(force, 5),
    "bottleneck": lambda force: bottleneck.move_mean(force, 5),
    "pandas": lambda force: pd.Series(force).rolling(5).mean().to_numpy(),
    "Polars": lambda force: pl.Series(force).rolling_mean(5).to_numpy(),
    "xarray": lambda force: xr.DataArray(force, dims="time").rolling(time=5).mean().to_numpy(),
}
SPIKES = {"1e8": 1e8, "1e18": 1e18, "infinite": np.inf}
seen = {}
for name, way in WAYS.items():
    seen[name] = []
    for spike in SPIKES.values():
        force = np.full(300, 0.1, np.float32)
        force[100] = spike
        seen[name].append(str(round(float(way(force)[290]), 3)))
    print(f"{name}: 190 frames behind a spike of {', '.join(SPIKES)}: {', '.join(seen[name])}")
print(f"warnings: {said}")

expected = dict.fromkeys(WAYS, ["0.1", "0.1", "0.1"]) | {
    "SciPy": ["0.1", "0.0", "nan"],
    "bottleneck": ["0.0", "0.0", "nan"],
}
if seen != expected or said:
    sys.exit(f"CHANGED: expected {expected}")
print("As described.")
END
