#!/bin/sh
# Guess: class_encode_column() of a DatasetDict gives a failure mode one number, the same in train and in test.
# What happens: each split numbers the modes that occur in it, by alphabet: where test has no slip, its success is 1,
#   which is slip in train, and a model that is right is counted wrong. Nothing warns of it; joining the two raises.
#   Cast to one ClassLabel, numbers are the same.
# Versions: datasets 5.2.0, pyarrow 26.0.1, numpy 2.2.6
# Output on 30 November 2026:
#   class_encode_column: {'train': {'dropped': 0, 'slip': 1, 'success': 2}, 'test': {'dropped': 0, 'success': 1}}
#   one ClassLabel: {'train': {'dropped': 0, 'slip': 1, 'success': 2}, 'test': {'dropped': 0, 'success': 2}}
set -eu
packages="datasets==5.2.0 pyarrow==26.0.1 numpy==2.2.6"
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

import datasets
from datasets import ClassLabel, Dataset, DatasetDict

datasets.disable_progress_bars()
MODES = {"train": ["dropped", "slip", "success", "success"], "test": ["dropped", "success", "success"]}
runs = DatasetDict({split: Dataset.from_dict({"mode": modes}) for split, modes in MODES.items()})


def numbers(encoded):
    return {
        split: dict(sorted(zip(MODES[split], rows["mode"], strict=True))) for split, rows in encoded.items()
    }


names = sorted({mode for modes in MODES.values() for mode in modes})
seen = {
    "class_encode_column": numbers(runs.class_encode_column("mode")),
    "one ClassLabel": numbers(runs.cast_column("mode", ClassLabel(names=names))),
}
for name, value in seen.items():
    print(f"{name}: {value}")

expected = {
    "class_encode_column": {"train": {"dropped": 0, "slip": 1, "success": 2}, "test": {"dropped": 0, "success": 1}},
    "one ClassLabel": {"train": {"dropped": 0, "slip": 1, "success": 2}, "test": {"dropped": 0, "success": 2}},
}
if seen != expected:
    sys.exit(f"CHANGED: expected {expected}")
print("As described.")
END
