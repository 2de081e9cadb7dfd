#!/bin/sh
# Guess: `to_datetime(seconds, unit="s").astype("int64")` gives nanoseconds, as it did for fifteen years.
# What happens: with pandas 3 whole seconds become microseconds, and fractions nanoseconds: code that divides by 1e9
#   puts an hour of recording into 3.6 s, if its clock happens to have whole numbers. Nothing warns of it.
# Versions: pandas 3.1.1, numpy 2.5.5
# Output on 29 November 2026:
#   whole seconds: datetime64[us], an hour by 1e9: 3.6 s
#   fractions seconds: datetime64[ns], an hour by 1e9: 3600.0 s
#   warnings: 0
set -eu
packages="pandas==3.1.1 numpy==2.5.5"
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

import pandas as pd

seen = {}
with warnings.catch_warnings(record=True) as told:
    warnings.simplefilter("always")
    for name, seconds in {"whole": [0, 3600], "fractions": [0.5, 3600.5]}.items():
        stamps = pd.Series(pd.to_datetime(seconds, unit="s"))
        whole = stamps.astype("int64")
        seen[name] = [str(stamps.dtype), float((whole.iloc[1] - whole.iloc[0]) / 1e9)]
        print(f"{name} seconds: {seen[name][0]}, an hour by 1e9: {seen[name][1]} s")
seen["warnings"] = len(told)
print(f"warnings: {len(told)}")

expected = {
    "whole": ["datetime64[us]", 3.6],
    "fractions": ["datetime64[ns]", 3600.0],
    "warnings": 0,
}
if seen != expected:
    sys.exit(f"CHANGED: expected {expected}")
print("As described.")
END
