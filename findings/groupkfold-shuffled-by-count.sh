#!/bin/sh
# Guess: Folds of whole episodes have about as many frames each, shuffled or not; the documentation says so of shuffled
#   ones.
# What happens: Of unshuffled ones. With `shuffle=True` folds have as many episodes each, whatever their length: of 60
#   episodes of 20 to 3,000 frames, over 20 seeds, a fold has 4 % to 43 % of the frames. A mean over folds then weighs a
#   frame of one ten times as much as one of another. StratifiedGroupKFold, shuffled, stays near 20 %. Nothing warns
#   of it.
# Versions: scikit-learn 1.9.1, numpy 2.4.6, scipy 1.18.1
# Output on 1 December 2026:
#   documented of shuffled folds: True
#   GroupKFold, % of frames: [20, 20, 20, 20, 20]
#   GroupKFold, shuffled: [17, 18, 18, 18, 28]
#   GroupKFold, shuffled, 20 seeds: [4, 43]
#   StratifiedGroupKFold, shuffled, 20 seeds: [19, 22]
#   warnings: []
set -eu
packages="scikit-learn==1.9.1 numpy==2.4.6 scipy==1.18.1"
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
from sklearn.model_selection import GroupKFold, StratifiedGroupKFold

said = []
warnings.showwarning = lambda *args, **_: said.append(str(args[0]))

# Lengths of 60 episodes, most of them short; every other one is a success.
LENGTHS = np.round(20 * 150 ** (np.arange(60) / 59) ** 2).astype(int)
EPISODE = np.repeat(np.arange(60), LENGTHS)
SUCCESS = EPISODE % 2


def shares(folds):
    """Per cent of the frames that each fold holds out, smallest first."""
    return sorted(round(100 * len(held) / len(EPISODE)) for _, held in folds.split(EPISODE, SUCCESS, EPISODE))


def extremes(kind):
    found = [share for seed in range(20) for share in shares(kind(5, shuffle=True, random_state=seed))]
    return [min(found), max(found)]


promise = "number of samples is approximately the same in each test fold when `shuffle` is True"
seen = {
    "documented of shuffled folds": promise in " ".join(GroupKFold.__doc__.split()),
    "GroupKFold, % of frames": shares(GroupKFold(5)),
    "GroupKFold, shuffled": shares(GroupKFold(5, shuffle=True, random_state=0)),
    "GroupKFold, shuffled, 20 seeds": extremes(GroupKFold),
    "StratifiedGroupKFold, shuffled, 20 seeds": extremes(StratifiedGroupKFold),
}
expected = {
    "documented of shuffled folds": True,
    "GroupKFold, % of frames": [20, 20, 20, 20, 20],
    "GroupKFold, shuffled": [17, 18, 18, 18, 28],
    "GroupKFold, shuffled, 20 seeds": [4, 43],
    "StratifiedGroupKFold, shuffled, 20 seeds": [19, 22],
}
for name, value in seen.items():
    print(f"{name}: {value}")
print(f"warnings: {said}")
if seen != expected or said:
    sys.exit(f"CHANGED: expected {expected}")
print("As described.")
END
