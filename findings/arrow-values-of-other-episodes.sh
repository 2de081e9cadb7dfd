#!/bin/sh
# Guess: The `.values` of a column of joint vectors, cut to one episode's rows, are the numbers of that episode, and
#   `.flatten()` is the same.
# What happens: `.values` are those of the whole column: what slice() cut off is back, and the first numbers are another
#   episode's. `.flatten()` keeps to the rows, but leaves out a row that is null, so that all later ones move up by one.
# Versions: pyarrow 26.0.1, numpy 2.4.6
# Output on 28 November 2026:
#   rows of episode 2: [[20.0, 20.0], [21.0, 21.0]]
#   their .values: [[0.0, 0.0], [1.0, 1.0], [10.0, 10.0], [11.0, 11.0], [20.0, 20.0], [21.0, 21.0]]
#   their .flatten(): [[20.0, 20.0], [21.0, 21.0]]
#   lists of any length, .values: [[0.0, 0.0], [1.0, 1.0], [10.0, 10.0], [11.0, 11.0], [20.0, 20.0], [21.0, 21.0]]
#   row 2 is null, row 3: [11.0, 11.0]
#   row 3 of its .flatten(): [20.0, 20.0]
set -eu
packages="pyarrow==26.0.1 numpy==2.4.6"
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

import pyarrow as pa

states = [[10.0 * episode + frame] * 2 for episode in range(3) for frame in range(2)]
fixed = pa.array(states, pa.list_(pa.float64(), 2))
table = pa.table({"episode": [0, 0, 1, 1, 2, 2], "state": fixed})
episode = table.slice(4, 2)["state"].chunk(0)
gap = pa.array([*states[:2], None, *states[3:]], fixed.type)


def vectors(numbers):
    return numbers.to_numpy(zero_copy_only=False).reshape(-1, 2).tolist()


seen = {
    "rows of episode 2": episode.to_pylist(),
    "their .values": vectors(episode.values),
    "their .flatten()": vectors(episode.flatten()),
    "lists of any length, .values": vectors(pa.array(states).slice(4, 2).values),
    "row 2 is null, row 3": gap[3].as_py(),
    "row 3 of its .flatten()": vectors(gap.flatten())[3],
}
for name, value in seen.items():
    print(f"{name}: {value}")

expected = {
    "rows of episode 2": states[4:],
    "their .values": states,
    "their .flatten()": states[4:],
    "lists of any length, .values": states,
    "row 2 is null, row 3": [11.0, 11.0],
    "row 3 of its .flatten()": [20.0, 20.0],
}
if seen != expected:
    sys.exit(f"CHANGED: expected {expected}")
print("As described.")
END
