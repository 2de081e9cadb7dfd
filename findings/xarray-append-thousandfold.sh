#!/bin/sh
# Guess: A second episode, appended to a Zarr store along its times, keeps its times.
# What happens: The store counts in the unit that fits the first episode. Where the second needs a finer one, xarray
#   writes the finer numbers and leaves the unit: 30 Hz after 10 Hz begins 3.5 days late. A warning says that other
#   units are used. An integer column rounds progress to 0 and 1, and no warning says so.
# Versions: xarray 2026.9.0, zarr 3.4.2, numpy 2.4.6
# Output on 28 November 2026:
#   30 Hz, then 30 Hz: [0.0, 0.033, 0.067, 1.0, 1.033, 1.067]
#   10 Hz, then 30 Hz: [0.0, 0.1, 0.2, 1000000.0, 1033333.333, 1066666.667]
#   1 Hz, then 10 Hz: [0.0, 1.0, 2.0, 1000.0, 1100.0, 1200.0]
#   progress: [0, 1, 1, 0, 0, 1]
set -eu
packages="xarray==2026.9.0 zarr==3.4.2 numpy==2.4.6"
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
import xarray

warnings.simplefilter("ignore")  # xarray's own: "serializing with units 'nanoseconds' instead"
START = np.datetime64("2026-11-28T10:00:00", "ns")


def episode(first_s, rate, progress):
    seconds = first_s + np.arange(3) / rate
    times = START + np.round(seconds * 1e9).astype("timedelta64[ns]")
    return xarray.Dataset({"progress": ("time", progress)}, coords={"time": times})


def stored(rates):
    first = episode(0, rates[0], [0, 1, 1])
    second = episode(1, rates[1], [0.25, 0.5, 0.75])
    first.to_zarr("run.zarr", mode="w", consolidated=False)
    second.to_zarr("run.zarr", append_dim="time", consolidated=False)
    return xarray.open_zarr("run.zarr", consolidated=False)


seen = {}
for rates in ((30, 30), (10, 30), (1, 10)):
    seconds = (stored(rates).time.values - START) / np.timedelta64(1, "s")
    seen[f"{rates[0]} Hz, then {rates[1]} Hz"] = seconds.round(3).tolist()
seen["progress"] = stored((30, 30)).progress.values.tolist()
for name, value in seen.items():
    print(f"{name}: {value}")

expected = {
    "30 Hz, then 30 Hz": [0.0, 0.033, 0.067, 1.0, 1.033, 1.067],
    "10 Hz, then 30 Hz": [0.0, 0.1, 0.2, 1000000.0, 1033333.333, 1066666.667],
    "1 Hz, then 10 Hz": [0.0, 1.0, 2.0, 1000.0, 1100.0, 1200.0],
    "progress": [0, 1, 1, 0, 0, 1],
}
if seen != expected:
    sys.exit(f"CHANGED: expected {expected}")
print("As described.")
END
