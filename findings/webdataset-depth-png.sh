#!/bin/sh
# Guess: a depth picture of 16 bits (millimetres) in a shard comes back with 16 bits, or decoding says that it cannot.
# What happens: each image mode that was tried gives 8 bits: all beyond 255 mm is 255. The bytes in the shard are
#   whole; datasets reads them with 16 bits.
# Versions: webdataset 1.0.2, datasets 4.8.5, pillow 12.3.0, numpy 2.2.6
# Output on 27 November 2026:
#   written: farthest pixel 4000 mm
#   webdataset, pil: farthest pixel 255 mm
#   webdataset, rgb8: farthest pixel 255 mm
#   webdataset, l8: farthest pixel 255 mm
#   webdataset, pill: farthest pixel 255 mm
#   webdataset, bytes opened by Pillow: farthest pixel 4000 mm
#   datasets: farthest pixel 4000 mm
set -eu
packages="webdataset==1.0.2 datasets==4.8.5 pillow==12.3.0 numpy==2.2.6"
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
import io
import os
import sys

os.environ["HF_HUB_OFFLINE"] = "1"
import datasets
import numpy as np
import webdataset as wds
from PIL import Image

depth = np.linspace(0, 4000, 64 * 64).astype(np.uint16).reshape(64, 64)
png = io.BytesIO()
Image.fromarray(depth).save(png, "png")
with wds.TarWriter("shard.tar") as shard:
    shard.write({"__key__": "0", "depth.png": png.getvalue()})

seen = {"written": int(depth.max())}
for way in ("pil", "rgb8", "l8", "pill"):
    sample = next(iter(wds.WebDataset("shard.tar", shardshuffle=False).decode(way)))
    seen[f"webdataset, {way}"] = int(np.asarray(sample["depth.png"]).max())
sample = next(iter(wds.WebDataset("shard.tar", shardshuffle=False)))
seen["webdataset, bytes opened by Pillow"] = int(np.asarray(Image.open(io.BytesIO(sample["depth.png"]))).max())
rows = datasets.load_dataset("webdataset", data_files={"train": "shard.tar"}, split="train", streaming=True)
seen["datasets"] = int(np.asarray(next(iter(rows))["depth.png"]).max())
for name, value in seen.items():
    print(f"{name}: farthest pixel {value} mm")

expected = {
    "written": 4000,
    "webdataset, pil": 255,
    "webdataset, rgb8": 255,
    "webdataset, l8": 255,
    "webdataset, pill": 255,
    "webdataset, bytes opened by Pillow": 4000,
    "datasets": 4000,
}
if seen != expected:
    sys.exit(f"CHANGED: expected {expected}")
print("As described.")
END
