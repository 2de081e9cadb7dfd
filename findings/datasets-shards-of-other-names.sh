#!/bin/sh
# Guess: load_dataset("webdataset") reads shards whose entries hold other numbers of pictures, as webdataset does.
# What happens: it takes the first entries' file names for the columns and raises a ValueError where another entry
#   lacks one or has more; webdataset reads both entries.
# Versions: datasets 4.8.5, webdataset 1.0.2, pillow 12.3.0, numpy 2.2.6
# Output on 29 November 2026:
#   webdataset: [['0.png', 'labels.json'], ['0.png', '1.png', 'labels.json']]
#   datasets, streamed: ValueError
#   datasets: ValueError
set -eu
packages="datasets==4.8.5 webdataset==1.0.2 pillow==12.3.0 numpy==2.2.6"
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
import webdataset as wds
from datasets import load_dataset

picture = np.zeros((16, 16, 3), np.uint8)
with wds.TarWriter("runs.tar") as tar:
    tar.write({"__key__": "ep0", "0.png": picture, "labels.json": [0.5]})
    tar.write({"__key__": "ep1", "0.png": picture, "1.png": picture, "labels.json": [0.5, 1.0]})

read = wds.WebDataset("runs.tar", shardshuffle=False)
seen = {"webdataset": [sorted(name for name in entry if not name.startswith("_")) for entry in read]}
for streaming in (True, False):
    name = "datasets, streamed" if streaming else "datasets"
    try:
        rows = load_dataset("webdataset", data_files="runs.tar", split="train", streaming=streaming, cache_dir="cache")
        seen[name] = [sorted(key for key in row if not key.startswith("_")) for row in rows]
    except Exception as error:
        cause = error.__cause__ or error
        seen[name] = type(cause).__name__
for name, value in seen.items():
    print(f"{name}: {value}")

expected = {
    "webdataset": [["0.png", "labels.json"], ["0.png", "1.png", "labels.json"]],
    "datasets, streamed": "ValueError",
    "datasets": "ValueError",
}
if seen != expected:
    sys.exit(f"CHANGED: expected {expected}")
print("As described.")
END
