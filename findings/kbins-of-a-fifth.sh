#!/bin/sh
# Guess: a KBinsDiscretizer with evenly spaced bins, fitted on a million actions, reaches from the least to the
#   largest.
# What happens: it draws 200,000 of them, as its reference says, and others each time: fitted eight times on the same
#   actions, all tokens differ between two fits, and the largest action is cut off by all eight. With `subsample=None`
#   it is as guessed. Nothing warns of it.
# Versions: scikit-learn 1.9.1, scipy 1.18.1, numpy 2.2.6
# Output on 29 November 2026:
#   as it is: fits of 8 that cut the largest off: 8; share of tokens that differ: 1.0
#   subsample=None: fits of 8 that cut the largest off: 0; share of tokens that differ: 0.0
set -eu
packages="scikit-learn==1.9.1 scipy==1.18.1 numpy==2.2.6"
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
from sklearn.preprocessing import KBinsDiscretizer

actions = np.random.default_rng(0).normal(0, 0.2, (1_000_000, 1)).clip(-0.9, 0.9)
actions[777] = 3.0


def fitted(**settings):
    return KBinsDiscretizer(n_bins=256, encode="ordinal", strategy="uniform", **settings).fit(actions)


seen = {}
for name, settings in {"as it is": {}, "subsample=None": {"subsample": None}}.items():
    np.random.seed(0)
    fits = [fitted(**settings) for _ in range(8)]
    tokens = [fit.transform(actions[:10_000]) for fit in fits]
    differ = max(float((tokens[0] != other).mean()) for other in tokens[1:])
    ends = [float(fit.bin_edges_[0][-1]) for fit in fits]
    seen[name] = [round(differ, 2), sum(end < 1 for end in ends)]
    print(f"{name}: fits of 8 that cut the largest off: {seen[name][1]}; share of tokens that differ: {seen[name][0]}")

expected = {
    "as it is": [1.0, 8],
    "subsample=None": [0.0, 0],
}
if seen != expected:
    sys.exit(f"CHANGED: expected {expected}")
print("As described.")
END
