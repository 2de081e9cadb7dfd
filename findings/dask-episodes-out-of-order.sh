#!/bin/sh
# Guess: where frames lie in their order, those of an episode still do after Dask's `set_index("episode")`, and a function
#   of `groupby("episode").apply` gets them so, also of an episode that two partitions share.
# What happens: on one machine Dask shuffles by disk, and what comes of another partition may come first: half of the
#   episodes of `set_index` have a later part before an earlier one, others in another run, and progress that only rises
#   falls by 1 within an episode of `apply`. By tasks, as on a cluster, it is as guessed. Nothing warns of it.
# Versions: dask 2026.8.0, pandas 3.0.6, numpy 2.3.5
# Output on 1 December 2026:
#   as it is: all episodes in order by set_index: False; least step of progress by groupby.apply: -1.0
#   shuffled by tasks: all episodes in order by set_index: True; least step of progress by groupby.apply: 0.001
set -eu
packages="dask[dataframe]==2026.8.0 pandas==3.0.6 numpy==2.3.5"
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

import dask
import dask.dataframe as dd
import numpy as np
import pandas as pd

warnings.simplefilter("ignore")
EPISODES, LENGTH = 20, 1000
frames = pd.DataFrame(
    {"episode": np.repeat(np.arange(EPISODES), LENGTH), "frame": np.tile(np.arange(LENGTH), EPISODES)}
)
frames["progress"] = frames["frame"] / (LENGTH - 1)


def looked_at():
    parts = dd.from_pandas(frames, npartitions=7, sort=False)
    indexed = parts.set_index("episode").compute()
    is_in_order = indexed.groupby(level=0)["frame"].apply(lambda numbers: (np.diff(numbers) == 1).all())
    steps = parts.groupby("episode")["progress"].apply(lambda curve: curve.diff().min(), meta=("progress", "f8"))
    return [bool(is_in_order.all()), round(float(steps.compute().min()), 3)]


seen = {"as it is": looked_at()}
with dask.config.set({"dataframe.shuffle.method": "tasks"}):
    seen["shuffled by tasks"] = looked_at()
for name, (all_in_order, step) in seen.items():
    print(f"{name}: all episodes in order by set_index: {all_in_order}; least step of progress by groupby.apply: {step}")

expected = {"as it is": [False, -1.0], "shuffled by tasks": [True, 0.001]}
if seen != expected:
    sys.exit(f"CHANGED: expected {expected}")
print("As described.")
END
