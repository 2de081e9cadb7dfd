#!/bin/sh
# Guess: AUROC and average precision of logits are the same whatever the size of the batches that `update` is given.
# What happens: torchmetrics takes a batch for probabilities if all its values lie in 0 to 1, and for logits otherwise,
#   each batch by itself. Where a small batch happens to lie in 0 to 1, raw values and sigmoids are ranked together:
#   AUROC falls from 0.754 to 0.724, F1 from 0.724 to 0.688. Nothing warns of it.
# Versions: torchmetrics 1.9.0, torch 2.11.0, numpy 2.2.6
# Output on 29 November 2026:
#   batches of 1000: AUROC 0.754, average precision 0.754, F1 0.724
#   batches of 4: AUROC 0.749, average precision 0.742, F1 0.721
#   batches of 1: AUROC 0.724, average precision 0.709, F1 0.688
set -eu
packages="torchmetrics==1.9.0 torch==2.11.0 numpy==2.2.6"
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

import torch
from torchmetrics.classification import BinaryAUROC, BinaryAveragePrecision, BinaryF1Score

draw = torch.Generator().manual_seed(0)
reached = torch.randint(0, 2, (1000,), generator=draw)
logits = torch.randn(1000, generator=draw) + reached

seen = {}
for size in (1000, 4, 1):
    metrics = [BinaryAUROC(), BinaryAveragePrecision(), BinaryF1Score()]
    for metric in metrics:
        for start in range(0, 1000, size):
            metric.update(logits[start : start + size], reached[start : start + size])
    seen[size] = [round(float(metric.compute()), 3) for metric in metrics]
    print(f"batches of {size}: AUROC {seen[size][0]}, average precision {seen[size][1]}, F1 {seen[size][2]}")

expected = {
    1000: [0.754, 0.754, 0.724],
    4: [0.749, 0.742, 0.721],
    1: [0.724, 0.709, 0.688],
}
if seen != expected:
    sys.exit(f"CHANGED: expected {expected}")
print("As described.")
END
