#!/bin/sh
# Guess: weighted kappa of two annotators weighs how far apart their marks are: 20 against 100 is worse than 10 against
#   20.
# What happens: scikit-learn counts places in the list of marks that occur, not their distance. Where nobody gave 30 to
#   90, 20 against 100 is one place, and its kappa of 0.955 is above the 0.95 of 10 against 20. With `labels` of all
#   marks, evenly spaced, they are 0.783 and 0.996.
# Versions: scikit-learn 1.9.1, scipy 1.18.1, numpy 2.5.5
# Output on 28 November 2026:
#   10 against 20: kappa 0.95, with labels=0...100 0.996, by the marks' distance 0.996
#   20 against 100: kappa 0.955, with labels=0...100 0.783, by the marks' distance 0.783
set -eu
packages="scikit-learn==1.9.1 scipy==1.18.1 numpy==2.5.5"
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
from sklearn.metrics import cohen_kappa_score

first = [0, 0, 10, 10, 20, 20, 100, 100]
near = [0, 0, 10, 20, 20, 20, 100, 100]
far = [0, 0, 10, 10, 20, 100, 100, 100]
marks = list(range(0, 101, 10))


def by_value(a, b):
    """Quadratic kappa from the marks themselves."""
    a, b = np.array(a), np.array(b)
    chance = np.mean((a[:, None] - b[None]) ** 2)
    return 1 - np.mean((a - b) ** 2) / chance


def look(other):
    places = cohen_kappa_score(first, other, weights="quadratic")
    all_marks = cohen_kappa_score(first, other, weights="quadratic", labels=marks)
    return [round(float(value), 3) for value in (places, all_marks, by_value(first, other))]


seen = {"10 against 20": look(near), "20 against 100": look(far)}
for name, value in seen.items():
    print(f"{name}: kappa {value[0]}, with labels=0...100 {value[1]}, by the marks' distance {value[2]}")

expected = {
    "10 against 20": [0.95, 0.996, 0.996],
    "20 against 100": [0.955, 0.783, 0.783],
}
if seen != expected:
    sys.exit(f"CHANGED: expected {expected}")
print("As described.")
END
