#!/bin/sh
# Guess: two accuracies in a MetricCollection, of thresholds 0.5 and 0.8, count each by its own.
# What happens: after the first batch the collection joins metrics whose counts are equal so far, whatever their
#   thresholds, and from then on feeds only one of them. Where the first scores are all clear, accuracy at 0.8 is from
#   there on that at 0.5: 0.625 for 1.0 here, and which of the two is by their names' order. With
#   compute_groups=False, or a first batch on which they differ, it is as guessed. Nothing warns of it.
# Versions: torchmetrics 1.9.0, torch 2.11.0, numpy 2.2.6
# Output on 29 November 2026:
#   clear batch first: above 0.5 0.625, above 0.8 0.625
#   unclear batch first: above 0.5 0.625, above 0.8 1.0
#   clear batch first, compute_groups=False: above 0.5 0.625, above 0.8 1.0
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
import warnings

warnings.simplefilter("ignore")
import torch
from torchmetrics import MetricCollection
from torchmetrics.classification import BinaryAccuracy

CLEAR = (torch.tensor([0.9, 0.95, 0.1, 0.2]), torch.tensor([1, 1, 0, 0]))
UNCLEAR = (torch.tensor([0.6, 0.7, 0.6, 0.9]), torch.tensor([0, 0, 0, 1]))


def accuracies(batches, **options):
    parts = {"lenient": BinaryAccuracy(threshold=0.5), "strict": BinaryAccuracy(threshold=0.8)}
    metrics = MetricCollection(parts, **options)
    for scores, outcomes in batches:
        metrics.update(scores, outcomes)
    return {name: round(float(value), 3) for name, value in sorted(metrics.compute().items())}


seen = {
    "clear batch first": accuracies([CLEAR, UNCLEAR]),
    "unclear batch first": accuracies([UNCLEAR, CLEAR]),
    "clear batch first, compute_groups=False": accuracies([CLEAR, UNCLEAR], compute_groups=False),
}
for name, value in seen.items():
    print(f"{name}: above 0.5 {value['lenient']}, above 0.8 {value['strict']}")

expected = {
    "clear batch first": {"lenient": 0.625, "strict": 0.625},
    "unclear batch first": {"lenient": 0.625, "strict": 1.0},
    "clear batch first, compute_groups=False": {"lenient": 0.625, "strict": 1.0},
}
if seen != expected:
    sys.exit(f"CHANGED: expected {expected}")
print("As described.")
END
