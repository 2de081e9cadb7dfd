#!/bin/sh
# Guess: the DTW distance to a run whose sensor failed at its end is NaN, infinite, or an error.
# What happens: tslearn fills short runs up with NaN, so NaN at the end is no data: the run is taken for one that
#   stopped there, with a finite distance and a path to its last number. NaN in the middle makes it infinite, but the
#   path is given as if nothing was. dtaidistance says NaN to both, and gives a path.
# Versions: tslearn 0.10.0, dtaidistance 2.5.1, scikit-learn 1.9.1, scipy 1.18.1, numpy 2.2.6
# Output on 29 November 2026:
#   stopped half way: tslearn 1.732, path ends at 2; dtaidistance 1.732
#   NaN at the end: tslearn 1.732, path ends at 2; dtaidistance nan
#   NaN in the middle: tslearn inf, path ends at 5; dtaidistance nan
set -eu
packages="tslearn==0.10.0 dtaidistance==2.5.1 scikit-learn==1.9.1 scipy==1.18.1 numpy==2.2.6"
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

import dtaidistance.dtw
import numpy as np
import tslearn.metrics

warnings.simplefilter("ignore")
NAN = float("nan")
whole = np.array([0.0, 1, 2, 3, 3, 3])
runs = {
    "stopped half way": whole[:3],
    "NaN at the end": np.array([0, 1, 2, NAN, NAN, NAN]),
    "NaN in the middle": np.array([0, NAN, 2, 3, 3, 3]),
}
seen = {}
for name, run in runs.items():
    path, distance = tslearn.metrics.dtw_path(whole, run)
    other = dtaidistance.dtw.distance(whole, run)
    seen[name] = [str(round(float(distance), 3)), int(path[-1][1]), str(round(float(other), 3))]
    print(f"{name}: tslearn {seen[name][0]}, path ends at {seen[name][1]}; dtaidistance {seen[name][2]}")

expected = {
    "stopped half way": ["1.732", 2, "1.732"],
    "NaN at the end": ["1.732", 2, "nan"],
    "NaN in the middle": ["inf", 5, "nan"],
}
if seen != expected:
    sys.exit(f"CHANGED: expected {expected}")
print("As described.")
END
