#!/bin/sh
# Guess: a detector of change points finds a clean jump at frame 33 at frame 33.
# What happens: ruptures' Pelt, Binseg, Dynp and Window look at every fifth frame alone, so they put it at 35, as their
#   `jump=5` says; KernelCPD has no such argument and finds 33, as Pelt does with `jump=1`. A step's end is up to two
#   frames off, whatever the signal.
# Versions: ruptures 1.1.10, scipy 1.18.1, numpy 2.2.6
# Output on 29 November 2026:
#   Pelt: 35
#   Binseg: 35
#   Window: 35
#   Dynp: 35
#   KernelCPD: 33
#   Pelt, jump=1: 33
set -eu
packages="ruptures==1.1.10 scipy==1.18.1 numpy==2.2.6"
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
import ruptures

signal = np.repeat([0.0, 1.0], [33, 67])[:, None]
detectors = {
    "Pelt": ruptures.Pelt(),
    "Binseg": ruptures.Binseg(),
    "Window": ruptures.Window(width=20),
    "Dynp": ruptures.Dynp(),
    "KernelCPD": ruptures.KernelCPD(),
    "Pelt, jump=1": ruptures.Pelt(jump=1),
}
seen = {}
for name, detector in detectors.items():
    wanted = {"pen": 1} if name.startswith("Pelt") else {"n_bkps": 1}
    seen[name] = int(detector.fit(signal).predict(**wanted)[-2])
    print(f"{name}: {seen[name]}")

expected = {
    "Pelt": 35,
    "Binseg": 35,
    "Window": 35,
    "Dynp": 35,
    "KernelCPD": 33,
    "Pelt, jump=1": 33,
}
if seen != expected:
    sys.exit(f"CHANGED: expected {expected}")
print("As described.")
END
