#!/bin/sh
# Guess: Wilcoxon's test of two policies' scores gives one p, whether the scores are 0 to 100 or the same as 0 to 1.
# What happens: it ranks differences, and of fractions equal ones differ by dust: 0.3 - 0.1 is below 0.5 - 0.3. Ties
#   are broken in an order that means nothing: p is 0.63 in per cent and 0.29 as fractions; of 40 comparisons it moves
#   by more than 0.01 in 33, and 2 are on the other side of 0.05. With differences rounded it is the same. Mann and
#   Whitney's test, which ranks scores, does not mind. Nothing warns of it.
# Versions: scipy 1.18.1, numpy 2.4.6
# Output on 30 November 2026:
#   in per cent: 0.63
#   as fractions: 0.29
#   as fractions, differences rounded: 0.63
#   comparisons of 40, p moves by more than 0.01: 33
#   on the other side of 0.05: 2
#   mannwhitneyu, p moves by more than 0.01: 0
#   warnings: []
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

import numpy as np
from scipy.stats import mannwhitneyu, wilcoxon

said = []
warnings.showwarning = lambda *args, **_: said.append(str(args[0]))


def scores(seed):
    """Two policies' scores of 12 tasks, in tenths."""
    rng = np.random.default_rng(seed)
    old = rng.integers(0, 11, 12)
    return old, np.clip(old + rng.integers(-2, 4, 12), 0, 10)


def p(old, new):
    return float(wilcoxon(old, new).pvalue)


old, new = scores(2)
pairs = [scores(seed) for seed in range(40)]
changes = [(p(a * 10, b * 10), p(a / 10, b / 10)) for a, b in pairs]
seen = {
    "in per cent": round(p(old * 10, new * 10), 2),
    "as fractions": round(p(old / 10, new / 10), 2),
    "as fractions, differences rounded": round(float(wilcoxon(np.round(old / 10 - new / 10, 6)).pvalue), 2),
    "comparisons of 40, p moves by more than 0.01": sum(abs(a - b) > 0.01 for a, b in changes),
    "on the other side of 0.05": sum((a < 0.05) != (b < 0.05) for a, b in changes),
    "mannwhitneyu, p moves by more than 0.01": sum(
        abs(mannwhitneyu(a * 10, b * 10).pvalue - mannwhitneyu(a / 10, b / 10).pvalue) > 0.01 for a, b in pairs
    ),
}
for name, value in seen.items():
    print(f"{name}: {value}")
print(f"warnings: {said}")

expected = {
    "in per cent": 0.63,
    "as fractions": 0.29,
    "as fractions, differences rounded": 0.63,
    "comparisons of 40, p moves by more than 0.01": 33,
    "on the other side of 0.05": 2,
    "mannwhitneyu, p moves by more than 0.01": 0,
}
if seen != expected or said:
    sys.exit(f"CHANGED: expected {expected}")
print("As described.")
END
