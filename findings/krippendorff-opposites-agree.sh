#!/bin/sh
# Guess: Two people who give opposite rewards, -1 for 1 and 1 for -1, disagree by every level of measurement, or
#   `ratio` refuses numbers below 0.
# What happens: By `ratio` alpha is 1, as if they agreed in all: the difference is divided by the sum of both numbers,
#   and where that is 0 it counts as no difference. By `interval` and `ordinal` it is below 0. Nothing warns of it.
# Versions: krippendorff 0.9.0, numpy 2.5.5
# Output on 30 November 2026:
#   ordinal: -0.75
#   interval: -0.75
#   ratio: 1.0
set -eu
packages="krippendorff==0.9.0 numpy==2.5.5"
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

import krippendorff

FIRST = [-1.0, -0.5, 0.5, 1.0]
SECOND = [1.0, 0.5, -0.5, -1.0]

seen = {
    level: round(float(krippendorff.alpha([FIRST, SECOND], level_of_measurement=level)), 2)
    for level in ("ordinal", "interval", "ratio")
}

expected = {"ordinal": -0.75, "interval": -0.75, "ratio": 1.0}

for name, value in seen.items():
    print(f"{name}: {value}")
if seen != expected:
    sys.exit(f"CHANGED: expected {expected}")
print("As described.")
END
