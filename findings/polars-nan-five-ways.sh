#!/bin/sh
# Guess: Polars treats a NaN in a column of progress one way: it is left out, or all that comes of it is NaN.
# What happens: `max` and `arg_max` leave it out, `mean` is NaN, `median` and sorting count it as the largest (0.6 of
#   0.1, 0.3, 0.9 and NaN), and `filter(progress > 1)` keeps it, as `top_k_by` finds it: the frame of the most progress
#   is the frame without any. `rolling_max` is NaN, `cum_max` is not. Nothing warns of it.
# Versions: polars 2.1.0
# Output on 29 November 2026:
#   max: 0.9
#   mean: nan
#   median: 0.6000000000000001
#   by_arg_max: 2
#   by_top_k: 1
#   by_sorting: 1
#   cum_max: 0.9
#   rolling_max: nan
#   frames with progress > 1: [1]
set -eu
packages="polars==2.1.0"
python=$("${PYTHON:-python3}" -c "import sys; print(sys.executable)")
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
if command -v uv >/dev/null; then
  uv venv --quiet --python "$python" env
  uv pip install --quiet --python env/bin/python "$packages"
else
  "$python" -m venv env
  env/bin/python -m pip install --quiet "$packages"
fi
env/bin/python - <<'END'
import sys

import polars as pl

frames = pl.DataFrame({"frame": [0, 1, 2, 3], "progress": [0.1, float("nan"), 0.9, 0.3]})
progress = pl.col("progress")
one = frames.select(
    max=progress.max(),
    mean=progress.mean(),
    median=progress.median(),
    by_arg_max=pl.col("frame").get(progress.arg_max()),
    by_top_k=pl.col("frame").top_k_by("progress", 1).first(),
    by_sorting=pl.col("frame").sort_by("progress").last(),
    cum_max=progress.cum_max().last(),
    rolling_max=progress.rolling_max(3).last(),
).row(0, named=True)
seen = {name: str(value) for name, value in one.items()}
seen["frames with progress > 1"] = frames.filter(progress > 1)["frame"].to_list()
for name, value in seen.items():
    print(f"{name}: {value}")

expected = {
    "max": "0.9",
    "mean": "nan",
    "median": "0.6000000000000001",
    "by_arg_max": "2",
    "by_top_k": "1",
    "by_sorting": "1",
    "cum_max": "0.9",
    "rolling_max": "nan",
    "frames with progress > 1": [1],
}
if seen != expected:
    sys.exit(f"CHANGED: expected {expected}")
print("As described.")
END
