#!/bin/sh
# Guess: SciPy's correlations leave masked frames out, or refuse masks.
# What happens: of five frames, four of which agree and the fifth of which is masked, kendalltau, weightedtau,
#   linregress and theilslopes leave it out: 1.0. spearmanr (0.0), somersd (0.2), chatterjeexi (0.4) and
#   numpy.corrcoef (-1.0) count what is under the mask. Nothing warns of it; pearsonr raises. scipy.stats.mstats and
#   numpy.ma have right ones of two.
# Versions: scipy 1.18.1, numpy 2.4.6
# Output on 29 November 2026:
#   without the fifth: 1.0
#   kendalltau: 1.0
#   weightedtau: 1.0
#   linregress: 1.0
#   theilslopes: 1.0
#   spearmanr: 0.0
#   somersd: 0.2
#   chatterjeexi: 0.4
#   numpy.corrcoef: -1.0
#   mstats.spearmanr: 1.0
#   numpy.ma.corrcoef: 1.0
set -eu
packages="scipy==1.18.1 numpy==2.4.6"
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

warnings.simplefilter("error")
import numpy as np
from scipy import stats

MASK = [False, False, False, False, True]
scores = np.ma.array([1, 2, 3, 4, 100.0], mask=MASK)
progress = np.ma.array([1, 2, 3, 4, -100.0], mask=MASK)
functions = {
    "kendalltau": lambda: stats.kendalltau(scores, progress).statistic,
    "weightedtau": lambda: stats.weightedtau(scores, progress).statistic,
    "linregress": lambda: stats.linregress(scores, progress).slope,
    "theilslopes": lambda: stats.theilslopes(progress, scores).slope,
    "spearmanr": lambda: stats.spearmanr(scores, progress).statistic,
    "somersd": lambda: stats.somersd(scores, progress).statistic,
    "chatterjeexi": lambda: stats.chatterjeexi(scores, progress).statistic,
    "numpy.corrcoef": lambda: np.corrcoef(scores, progress)[0, 1],
    "mstats.spearmanr": lambda: stats.mstats.spearmanr(scores, progress).statistic,
    "numpy.ma.corrcoef": lambda: np.ma.corrcoef(scores, progress)[0, 1],
}
seen = {"without the fifth": round(float(stats.spearmanr(scores.compressed(), progress.compressed()).statistic), 2)}
for name, function in functions.items():
    seen[name] = round(float(function()), 2)
for name, value in seen.items():
    print(f"{name}: {value}")

expected = {
    "without the fifth": 1.0,
    "kendalltau": 1.0,
    "weightedtau": 1.0,
    "linregress": 1.0,
    "theilslopes": 1.0,
    "spearmanr": 0.0,
    "somersd": 0.2,
    "chatterjeexi": 0.4,
    "numpy.corrcoef": -1.0,
    "mstats.spearmanr": 1.0,
    "numpy.ma.corrcoef": 1.0,
}
if seen != expected:
    sys.exit(f"CHANGED: expected {expected}")
print("As described.")
END
