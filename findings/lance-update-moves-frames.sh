#!/bin/sh
# Guess: Correcting the progress of frame 1 in a Lance dataset leaves the frames in their places.
# What happens: The corrected row goes to the end: to_table() and take() by number give other frames from there on, so
#   that labels kept beside the dataset, by frame number, fit no more. A sort by the frame's own column brings them
#   back.
# Versions: pylance 14.0.2, pyarrow 26.0.1
# Output on 28 November 2026:
#   before: frames [0, 1, 2, 3, 4, 5], take([1]) gives 1
#   after: frames [0, 2, 3, 4, 5, 1], take([1]) gives 2
set -eu
packages="pylance==14.0.2 pyarrow==26.0.1"
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

import lance
import pyarrow as pa

rows = pa.table({"frame_index": range(6), "progress": [0.0, 0.9, 0.4, 0.6, 0.8, 1.0]})
dataset = lance.write_dataset(rows, "frames.lance")


def places():
    frames = dataset.to_table(columns=["frame_index"])["frame_index"].to_pylist()
    return [frames, dataset.take([1])["frame_index"][0].as_py()]


seen = {"before": places()}
dataset.update({"progress": "0.2"}, where="frame_index = 1")
seen["after"] = places()
for name, (frames, taken) in seen.items():
    print(f"{name}: frames {frames}, take([1]) gives {taken}")

expected = {"before": [[0, 1, 2, 3, 4, 5], 1], "after": [[0, 2, 3, 4, 5, 1], 2]}
if seen != expected:
    sys.exit(f"CHANGED: expected {expected}")
print("As described.")
END
