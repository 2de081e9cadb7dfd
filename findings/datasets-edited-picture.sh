#!/bin/sh
# Guess: A picture opened from a JPEG, painted over or scaled down in place, is stored as it is now.
# What happens: datasets stores the file that it was opened from. A face painted over inside map() is there again, and a
#   thumbnail has its full size, also in the Parquet file that is then shared. A copy() is stored as it is.
# Versions: datasets 5.2.0, pillow 13.0.0, numpy 2.4.6
# Output on 28 November 2026:
#   in memory, painted: [64, 64], 0
#   stored, painted: [64, 64], 200
#   stored, painted by map(): [64, 64], 200
#   stored, thumbnail of 16: [64, 64], 200
#   stored, copy() painted: [64, 64], 0
set -eu
packages="datasets==5.2.0 pillow==13.0.0 numpy==2.4.6"
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

import datasets
import numpy as np
from PIL import Image, ImageDraw

datasets.disable_progress_bars()
Image.fromarray(np.full((64, 64, 3), 200, np.uint8)).save("face.jpg")


def painted(picture):
    ImageDraw.Draw(picture).rectangle((0, 0, 63, 63), fill=(0, 0, 0))
    return picture


def thumbnail():
    picture = Image.open("face.jpg")
    picture.thumbnail((16, 16))
    return picture


def look(picture):
    return f"{list(picture.size)}, {round(float(np.asarray(picture).mean()))}"


def stored(picture):
    features = datasets.Features({"image": datasets.Image()})
    rows = datasets.Dataset.from_dict({"image": [picture]}, features=features)
    rows.to_parquet("shared.parquet")
    return look(datasets.Dataset.from_parquet("shared.parquet", keep_in_memory=True)[0]["image"])


rows = datasets.Dataset.from_dict({"image": ["face.jpg"]}).cast_column("image", datasets.Image())
mapped = rows.map(lambda row: {"image": painted(row["image"])})
seen = {
    "in memory, painted": look(painted(Image.open("face.jpg"))),
    "stored, painted": stored(painted(Image.open("face.jpg"))),
    "stored, painted by map()": look(mapped[0]["image"]),
    "stored, thumbnail of 16": stored(thumbnail()),
    "stored, copy() painted": stored(painted(Image.open("face.jpg").copy())),
}
for name, value in seen.items():
    print(f"{name}: {value}")

expected = {
    "in memory, painted": "[64, 64], 0",
    "stored, painted": "[64, 64], 200",
    "stored, painted by map()": "[64, 64], 200",
    "stored, thumbnail of 16": "[64, 64], 200",
    "stored, copy() painted": "[64, 64], 0",
}
if seen != expected:
    sys.exit(f"CHANGED: expected {expected}")
print("As described.")
END
