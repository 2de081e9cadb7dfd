#!/bin/sh
# Guess: Frames that an annotator did not mark (NaN) do not count when statsmodels works out how well three annotators
#   agree, or it refuses them.
# What happens: aggregate_raters() takes NaN for one more mark, so that annotators agree where none of them marked: 20
#   frames in which they agree little have a kappa of 0.12, and 0.71 with 40 frames that nobody looked at; where one
#   of them marked half of the 20 it is -0.03. Krippendorff's alpha is 0.13 with and without the 40. Nothing warns of
#   it.
# Versions: statsmodels 0.15.0, krippendorff 0.9.0, scipy 1.18.1, pandas 3.1.1, numpy 2.4.6
# Output on 30 November 2026:
#   20 frames: kappa 0.12, alpha 0.13
#   and 40 that nobody marked: kappa 0.71, alpha 0.13
#   20 frames, the third annotator marked half: kappa -0.03, alpha 0.11
#   warnings: []
set -eu
packages="statsmodels==0.15.0 krippendorff==0.9.0 scipy==1.18.1 pandas==3.1.1 numpy==2.4.6"
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

import krippendorff
import numpy as np
from statsmodels.stats.inter_rater import aggregate_raters, fleiss_kappa

said = []
warnings.showwarning = lambda *args, **_: said.append(str(args[0]))
marks = np.random.default_rng(7).integers(0, 2, (20, 3)).astype(float)
unmarked = np.full((40, 3), np.nan)
half = marks.copy()
half[10:, 2] = np.nan
seen = {}
for name, table in {
    "20 frames": marks,
    "and 40 that nobody marked": np.concatenate([marks, unmarked]),
    "20 frames, the third annotator marked half": half,
}.items():
    kappa = fleiss_kappa(aggregate_raters(table)[0])
    alpha = krippendorff.alpha(table.T, level_of_measurement="nominal")
    seen[name] = (round(float(kappa), 2), round(float(alpha), 2))
    print(f"{name}: kappa {seen[name][0]}, alpha {seen[name][1]}")
print(f"warnings: {said}")

expected = {
    "20 frames": (0.12, 0.13),
    "and 40 that nobody marked": (0.71, 0.13),
    "20 frames, the third annotator marked half": (-0.03, 0.11),
}
if seen != expected or said:
    sys.exit(f"CHANGED: expected {expected}")
print("As described.")
END
