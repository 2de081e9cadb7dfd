#!/bin/sh
# Guess: TileDB's mean of a dense array that is written up to a frame is its sum by its count, or the mean of the frames
#   that are there; how the array is cut into tiles does not matter.
# What happens: it is neither. The sum leaves out cells that nobody wrote, the count has all that were asked for, and the
#   mean divides by all cells of tiles that hold something and are read whole, but by the written ones alone of tiles
#   that are read in part. The mean progress of 55 frames of 100, which is 0.25, is 0.1375, 0.2148 or 0.2292 with tiles
#   of 100, 16 or 10 frames, and 0.25 of the first 59 frames. Nothing warns of it.
# Versions: tiledb 0.36.1 (TileDB 2.30.0), numpy 2.3.5
# Output on 1 December 2026:
#   mean of the frames that are there: 0.2500
#   55 frames, tiles of 10: count 55, sum 13.75, mean 0.25; sum by count 0.2500
#   59 frames, tiles of 10: count 59, sum 13.75, mean 0.25; sum by count 0.2331
#   100 frames, tiles of 10: count 100, sum 13.75, mean 0.2292; sum by count 0.1375
#   55 frames, tiles of 16: count 55, sum 13.75, mean 0.25; sum by count 0.2500
#   59 frames, tiles of 16: count 59, sum 13.75, mean 0.25; sum by count 0.2331
#   100 frames, tiles of 16: count 100, sum 13.75, mean 0.2148; sum by count 0.1375
#   55 frames, tiles of 100: count 55, sum 13.75, mean 0.25; sum by count 0.2500
#   59 frames, tiles of 100: count 59, sum 13.75, mean 0.25; sum by count 0.2331
#   100 frames, tiles of 100: count 100, sum 13.75, mean 0.1375; sum by count 0.1375
set -eu
packages="tiledb==0.36.1 numpy==2.3.5"
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
import tiledb

WRITTEN, ALL = 55, 100
progress = np.arange(WRITTEN) / 108


def mean(tile, frames):
    name = f"tiles-of-{tile}"
    if not tiledb.object_type(name):
        axis = tiledb.Dim("frame", domain=(0, ALL - 1), tile=tile, dtype=np.int64)
        schema = tiledb.ArraySchema(tiledb.Domain(axis), attrs=[tiledb.Attr("progress", dtype=np.float64)])
        tiledb.Array.create(name, schema)
        with tiledb.open(name, "w") as array:
            array[:WRITTEN] = {"progress": progress}
    with tiledb.open(name) as array:
        found = array.query().agg({"progress": ["count", "sum", "mean"]})[:frames]
    return [int(found["count"]), round(float(found["sum"]), 2), round(float(found["mean"]), 4)]


seen = {f"{frames} frames, tiles of {tile}": mean(tile, frames) for tile in (10, 16, 100) for frames in (55, 59, 100)}
print(f"mean of the frames that are there: {progress.mean():.4f}")
for name, (count, total, found) in seen.items():
    print(f"{name}: count {count}, sum {total}, mean {found}; sum by count {total / count:.4f}")

means = {10: 0.2292, 16: 0.2148, 100: 0.1375}
expected = {
    f"{frames} frames, tiles of {tile}": [frames, 13.75, means[tile] if frames == ALL else 0.25]
    for tile in means
    for frames in (55, 59, 100)
}
if seen != expected:
    sys.exit(f"CHANGED: expected {expected}")
print("As described.")
END
