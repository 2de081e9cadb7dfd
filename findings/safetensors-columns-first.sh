#!/bin/sh
# Guess: safetensors.numpy writes an array in Fortran's order, such as a transposed one, as NumPy compares it, or raises
#   as safetensors.torch does.
# What happens: It writes the memory as it lies, under the shape of the array: the file is valid, and the numbers are in
#   other places. Nothing warns of it. The coefficients of scikit-learn's Ridge are such an array. The docstring asks
#   for contiguous tensors, and so NumPy calls these.
# Versions: safetensors 0.8.0, scikit-learn 1.9.1, numpy 2.4.6
# Output on 28 November 2026:
#   a matrix: [[0.0, 1.0, 2.0], [3.0, 4.0, 5.0]]
#   the same in Fortran's order: [[0.0, 3.0, 1.0], [4.0, 2.0, 5.0]]
#   transposed: [[0.0, 1.0], [2.0, 3.0], [4.0, 5.0]]
#   does NumPy call them contiguous: [True, True]
#   Ridge's coefficients come back: False
#   Ridge's coefficients, by np.save: True
set -eu
packages="safetensors==0.8.0 scikit-learn==1.9.1 numpy==2.4.6"
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
from safetensors.numpy import load_file, save_file
from sklearn.linear_model import Ridge


def stored(array):
    save_file({"array": array}, "array.safetensors")
    return load_file("array.safetensors")["array"]


matrix = np.arange(6, dtype=np.float32).reshape(2, 3)
fortran = np.asfortranarray(matrix)
draw = np.random.default_rng(0)
head = Ridge().fit(draw.normal(size=(100, 5)), draw.normal(size=(100, 3))).coef_
np.save("head.npy", head)
seen = {
    "a matrix": stored(matrix).tolist(),
    "the same in Fortran's order": stored(fortran).tolist(),
    "transposed": stored(matrix.T).tolist(),
    "does NumPy call them contiguous": [array.data.contiguous for array in (fortran, matrix.T)],
    "Ridge's coefficients come back": np.array_equal(stored(head), head),
    "Ridge's coefficients, by np.save": np.array_equal(np.load("head.npy"), head),
}
for name, value in seen.items():
    print(f"{name}: {value}")

expected = {
    "a matrix": [[0.0, 1.0, 2.0], [3.0, 4.0, 5.0]],
    "the same in Fortran's order": [[0.0, 3.0, 1.0], [4.0, 2.0, 5.0]],
    "transposed": [[0.0, 1.0], [2.0, 3.0], [4.0, 5.0]],
    "does NumPy call them contiguous": [True, True],
    "Ridge's coefficients come back": False,
    "Ridge's coefficients, by np.save": True,
}
if seen != expected:
    sys.exit(f"CHANGED: expected {expected}")
print("As described.")
END
