#!/bin/sh
# Guess: A random tenth of the frames, drawn with a seed so that it can be drawn again, are frames from all over the
#   episodes.
# What happens: Daft starts the draw anew with the same seed in each file: of six episodes of 100 frames, a file each,
#   it takes the same ten numbers. What happens at other times is in no sample. Without a seed the draws differ.
# Versions: daft 0.7.26, pyarrow 25.0.1
# Output on 28 November 2026:
#   seed 7: {'frames': 60, 'same in all episodes': True}
#   seed 8: {'frames': 60, 'same in all episodes': True}
#   seed None: {'frames': 60, 'same in all episodes': False}
set -eu
packages="daft==0.7.26 pyarrow==25.0.1"
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
import os
import sys

os.environ |= {"DAFT_PROGRESS_BAR": "0", "DO_NOT_TRACK": "true"}
import daft
import pyarrow as pa
import pyarrow.parquet as pq

os.mkdir("episodes")
for episode in range(6):
    frames = {"episode_index": [episode] * 100, "frame_index": range(100)}
    pq.write_table(pa.table(frames), f"episodes/{episode}.parquet")

seen = {}
for seed in (7, 8, None):
    sample = daft.read_parquet("episodes/*.parquet").sample(fraction=0.1, seed=seed).to_pydict()
    drawn = {episode: set() for episode in range(6)}
    for episode, frame in zip(sample["episode_index"], sample["frame_index"], strict=True):
        drawn[episode].add(frame)
    is_same = all(frames == drawn[0] for frames in drawn.values())
    seen[f"seed {seed}"] = {"frames": len(sample["frame_index"]), "same in all episodes": is_same}
for name, value in seen.items():
    print(f"{name}: {value}")

expected = {
    "seed 7": {"frames": 60, "same in all episodes": True},
    "seed 8": {"frames": 60, "same in all episodes": True},
    "seed None": {"frames": 60, "same in all episodes": False},
}
if seen != expected:
    sys.exit(f"CHANGED: expected {expected}")
print("As described.")
END
