#!/bin/sh
# Guess: a left join gives the rows of the left table in their order, each with what was found.
# What happens: PyArrow's `Table.join` puts the rows for which nothing was found behind the others of their batch:
#   frames 6 and 7 of ten are last, and of 200,000 frames 169,848 are in another row, without threads, too. Labels in
#   the old order are then on other frames. Nothing warns of it.
# Versions: pyarrow 26.0.1, numpy 2.2.6
# Output on 29 November 2026:
#   ten frames: [0, 1, 2, 3, 4, 5, 8, 9, 6, 7]
#   of 200,000 in another row: 169848
set -eu
packages="pyarrow==26.0.1 numpy==2.2.6"
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
import pyarrow as pa


def joined(count, length, labelled):
    """The frames in the order of a left join with the labelled episodes."""
    numbers = np.arange(count)
    frames = pa.table({"frame": numbers, "episode": numbers // length})
    episodes = pa.table({"episode": labelled, "success": np.ones(len(labelled), bool)})
    return frames.join(episodes, "episode", join_type="left outer", use_threads=False)["frame"].to_numpy()


few = joined(10, 2, [0, 1, 2, 4])
many = joined(200_000, 300, np.arange(0, 667, 2))
seen = {
    "ten frames": few.tolist(),
    "of 200,000 in another row": int((many != np.arange(len(many))).sum()),
}
for name, value in seen.items():
    print(f"{name}: {value}")

expected = {
    "ten frames": [0, 1, 2, 3, 4, 5, 8, 9, 6, 7],
    "of 200,000 in another row": 169848,
}
if seen != expected:
    sys.exit(f"CHANGED: expected {expected}")
print("As described.")
END
