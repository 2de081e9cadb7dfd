#!/bin/sh
# Guess: adding up 10,000 ones in bfloat16 gives about 10,000, by whatever function of PyTorch.
# What happens: `sum`, `cumsum` and `scatter_add_` give 9,984, `index_add_` stops at 256, as does the gradient of an
#   embedding's row that is used 10,000 times: a mean over tokens by index_add is a fortieth of what it is. Nothing
#   warns of it.
# Versions: torch 2.11.0, numpy 2.2.6
# Output on 29 November 2026:
#   sum: 9984
#   cumsum: 9984
#   scatter_add: 9984
#   index_add: 256
#   gradient of an embedding: 256
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

COUNT = 10_000
ones = torch.ones(COUNT, dtype=torch.bfloat16)
places = torch.zeros(COUNT, dtype=torch.long)
row = torch.nn.Embedding(1, 1, dtype=torch.bfloat16)
row(places).sum().backward()
zero = torch.zeros(1, dtype=torch.bfloat16)
seen = {
    "sum": int(ones.sum()),
    "cumsum": int(ones.cumsum(0)[-1]),
    "scatter_add": int(zero.scatter_add(0, places, ones)),
    "index_add": int(zero.index_add(0, places, ones)),
    "gradient of an embedding": int(row.weight.grad),
}
for name, value in seen.items():
    print(f"{name}: {value}")

expected = {
    "sum": 9984,
    "cumsum": 9984,
    "scatter_add": 9984,
    "index_add": 256,
    "gradient of an embedding": 256,
}
if seen != expected:
    sys.exit(f"CHANGED: expected {expected}")
print("As described.")
END
