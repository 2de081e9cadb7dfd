#!/bin/sh
# Guess: Isotonic calibration of a model's float32 scores is that of the same scores as float64.
# What happens: Scores within 1e-6 of each other count as one in float32, also where all are smaller than that: a
#   thousand scores of rare failures, which rank them well, all get the same rate. As float64 they are told apart.
# Versions: scikit-learn 1.9.1, scipy 1.17.1, numpy 2.4.6
# Output on 28 November 2026:
#   scores: 1000
#   their AUC: 0.84
#   float32, rates: 1
#   float32, their AUC: 0.5
#   float64, rates: 17
#   float64, their AUC: 0.85
set -eu
packages="scikit-learn==1.9.1 scipy==1.17.1 numpy==2.4.6"
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
from sklearn.isotonic import IsotonicRegression
from sklearn.metrics import roc_auc_score

draw = np.random.default_rng(0)
scores = np.sort(10.0 ** draw.uniform(-12, -6.3, 1000)).astype(np.float32)
failed = draw.uniform(size=1000) < np.linspace(0, 1, 1000)
seen = {"scores": len(np.unique(scores)), "their AUC": round(roc_auc_score(failed, scores), 2)}
for kind in (np.float32, np.float64):
    rates = IsotonicRegression().fit(scores.astype(kind), failed).predict(scores.astype(kind))
    seen[f"{kind.__name__}, rates"] = len(np.unique(rates))
    seen[f"{kind.__name__}, their AUC"] = round(roc_auc_score(failed, rates), 2)
for name, value in seen.items():
    print(f"{name}: {value}")

expected = {
    "scores": 1000,
    "their AUC": 0.84,
    "float32, rates": 1,
    "float32, their AUC": 0.5,
    "float64, rates": 17,
    "float64, their AUC": 0.85,
}
if seen != expected:
    sys.exit(f"CHANGED: expected {expected}")
print("As described.")
END
