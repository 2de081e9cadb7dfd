#!/bin/sh
# Guess: the interval of a weighted mean is the same whatever factor all weights have.
# What happens: statsmodels' DescrStatsW takes weights for counts of cases: of 40 outcomes with weights of 1 the
#   interval is 0.34 to 0.66, with 100 it is 0.48 to 0.52, and with weights that sum to 1, as samplers have them, NaN.
#   GLM's freq_weights do likewise; WLS does not mind. The last case warns of a root of a negative number, the others
#   not.
# Versions: statsmodels 0.15.0, scipy 1.18.1, pandas 3.1.1, numpy 2.5.5
# Output on 29 November 2026:
#   weights of 1: interval 0.34 to 0.66; standard error by WLS 0.26, by GLM 1.03
#   weights of 100: interval 0.48 to 0.52; standard error by WLS 0.26, by GLM 0.10
#   weights of 0.025: interval nan to nan; standard error by WLS 0.26, by GLM 6.54
set -eu
packages="statsmodels==0.15.0 scipy==1.18.1 pandas==3.1.1 numpy==2.5.5"
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
import statsmodels.api as sm
from statsmodels.stats.weightstats import DescrStatsW

warnings.simplefilter("ignore")
success = np.array([0.0, 1.0] * 20)
times = sm.add_constant(np.linspace(0, 1, 40) ** 2)
seen = {}
for weight in (1, 100, 1 / 40):
    weights = np.full(40, weight)
    low, high = DescrStatsW(success, weights=weights).tconfint_mean()
    wls = sm.WLS(success, times, weights=weights).fit().bse[1]
    glm = sm.GLM(success, times, family=sm.families.Binomial(), freq_weights=weights).fit().bse[1]
    seen[f"{weight:g}"] = [f"{value:.2f}" for value in (low, high, wls, glm)]
    print(f"weights of {weight:g}: interval {low:.2f} to {high:.2f}; standard error by WLS {wls:.2f}, by GLM {glm:.2f}")

expected = {
    "1": ["0.34", "0.66", "0.26", "1.03"],
    "100": ["0.48", "0.52", "0.26", "0.10"],
    "0.025": ["nan", "nan", "0.26", "6.54"],
}
if seen != expected:
    sys.exit(f"CHANGED: expected {expected}")
print("As described.")
END
