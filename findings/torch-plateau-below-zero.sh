#!/bin/sh
# Guess: ReduceLROnPlateau lowers the rate where a measure stands still, whatever its sign: a loss by likelihood, or a
#   return, may be below 0.
# What happens: its threshold is a share of the best value, so that below 0 it points the other way: -1 for ever
#   counts as better each time, and so does a return that falls a little with each epoch. The rate is never lowered;
#   at +1 it is lowered each fourth epoch. With threshold_mode="abs" it is as guessed. Nothing warns of it.
# Versions: torch 2.11.0, numpy 2.2.6
# Output on 30 November 2026:
#   loss 1: lowered 7 times in 30 epochs
#   loss -1: lowered 0 times in 30 epochs
#   loss -1, abs: lowered 7 times in 30 epochs
#   return 1, falling: lowered 7 times in 30 epochs
#   return -1, falling: lowered 0 times in 30 epochs
#   return -1, falling, abs: lowered 7 times in 30 epochs
#   warnings: []
set -eu
packages="torch==2.11.0 numpy==2.2.6"
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

import torch
from torch.optim.lr_scheduler import ReduceLROnPlateau

said = []
warnings.showwarning = lambda *args, **_: said.append(str(args[0]))


def times_lowered(measures, **options):
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    scheduler = ReduceLROnPlateau(optimizer, patience=3, factor=0.5, **options)
    rates = []
    for measure in measures:
        scheduler.step(measure)
        rates.append(optimizer.param_groups[0]["lr"])
    return len(set(rates)) - (1.0 in rates)


EPOCHS = range(30)
seen = {
    "loss 1": times_lowered([1.0 for _ in EPOCHS], mode="min"),
    "loss -1": times_lowered([-1.0 for _ in EPOCHS], mode="min"),
    "loss -1, abs": times_lowered([-1.0 for _ in EPOCHS], mode="min", threshold_mode="abs"),
    "return 1, falling": times_lowered([1 - 5e-5 * k for k in EPOCHS], mode="max"),
    "return -1, falling": times_lowered([-1 - 5e-5 * k for k in EPOCHS], mode="max"),
    "return -1, falling, abs": times_lowered([-1 - 5e-5 * k for k in EPOCHS], mode="max", threshold_mode="abs"),
}
for name, value in seen.items():
    print(f"{name}: lowered {value} times in 30 epochs")
print(f"warnings: {said}")

expected = {
    "loss 1": 7,
    "loss -1": 0,
    "loss -1, abs": 7,
    "return 1, falling": 7,
    "return -1, falling": 0,
    "return -1, falling, abs": 7,
}
if seen != expected or said:
    sys.exit(f"CHANGED: expected {expected}")
print("As described.")
END
