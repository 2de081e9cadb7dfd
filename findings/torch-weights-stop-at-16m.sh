#!/bin/sh
# Guess: WeightedRandomSampler draws by weights of 60 million frames as it does by those of one million.
# What happens: it is made and says its length, and the first batch raises: torch.multinomial knows 2^24 = 16,777,216
#   weights at most, by 2.15 as well.
# Versions: torch 2.11.0, numpy 2.2.6
# Output on 27 November 2026:
#   16,777,216 weights: len() 4, drawn: 4
#   16,777,217 weights: len() 4, drawn: number of categories cannot exceed 2^24
#   60,000,000 weights: len() 4, drawn: number of categories cannot exceed 2^24
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

import torch
from torch.utils.data import WeightedRandomSampler

seen = {}
for frames in (2**24, 2**24 + 1, 60_000_000):
    sampler = WeightedRandomSampler(torch.ones(frames, dtype=torch.float32), num_samples=4)
    try:
        seen[frames] = len(list(sampler))
    except RuntimeError as error:
        seen[frames] = str(error)
    print(f"{frames:,} weights: len() {len(sampler)}, drawn: {seen[frames]}")

expected = {
    2**24: 4,
    2**24 + 1: "number of categories cannot exceed 2^24",
    60_000_000: "number of categories cannot exceed 2^24",
}
if seen != expected:
    sys.exit(f"CHANGED: expected {expected}")
print("As described.")
END
