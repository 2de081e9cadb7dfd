#!/bin/sh
# Guess: the rank correlation of progress with an unreadable answer (NaN) is NaN, as in SciPy, and so is that of a
#   model that always says the same.
# What happens: TorchMetrics ranks NaN as the largest answer and gives 0.7955 for 19 right answers of 20 (SciPy: NaN);
#   for a constant answer it gives 0 (SciPy: NaN). Means over episodes by the two differ, and neither says so.
# Versions: torchmetrics 1.9.0, scipy 1.17.1, torch 2.11.0, numpy 2.2.6
# Output on 27 November 2026:
#   one of 20 unreadable: TorchMetrics 0.7955, SciPy nan
#   always 0.3: TorchMetrics 0.0000, SciPy nan
set -eu
packages="torchmetrics==1.9.0 scipy==1.17.1 torch==2.11.0 numpy==2.2.6"
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
import math
import sys
import warnings

import numpy as np
import torch
from scipy.stats import spearmanr
from torchmetrics.functional import spearman_corrcoef

warnings.simplefilter("ignore")  # SciPy's, of a constant
truth = np.linspace(0, 1, 20)
unread = truth.copy()
unread[3] = np.nan
seen = {}
for name, answers in (("one of 20 unreadable", unread), ("always 0.3", np.full(20, 0.3))):
    by_torch = float(spearman_corrcoef(torch.tensor(answers), torch.tensor(truth)))
    by_scipy = float(spearmanr(answers, truth)[0])
    seen[name] = [round(by_torch, 4), math.isnan(by_scipy)]
    print(f"{name}: TorchMetrics {by_torch:.4f}, SciPy {by_scipy:.4f}")

expected = {
    "one of 20 unreadable": [0.7955, True],
    "always 0.3": [0.0, True],
}
if seen != expected:
    sys.exit(f"CHANGED: expected {expected}")
print("As described.")
END
