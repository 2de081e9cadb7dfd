#!/bin/sh
# Guess: A StreamingDataset of 1,000 frames gives 1,000 frames on one node.
# What happens: Split for 64 nodes, as py1s and py2s do unless told otherwise, and as py1e does if told so, it gives
#   1,024: 24 frames twice, so that each of the 64 parts has as many. len() says 1,000. A mean over the epoch counts
#   them twice.
# Versions: mosaicml-streaming 0.13.0, torch 2.11.0, torchvision 0.26.0, numpy 2.1.3
# Output on 28 November 2026:
#   py1e, no nodes given: len() 1000, 1000 frames, 1000 different
#   py1s, no nodes given: len() 1000, 1024 frames, 1000 different
#   py2s, no nodes given: len() 1000, 1024 frames, 1000 different
#   py1e, 64 nodes given: len() 1000, 1024 frames, 1000 different
set -eu
packages="mosaicml-streaming==0.13.0 torch==2.11.0 torchvision==0.26.0 numpy==2.1.3"
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
import logging
import sys

from streaming import MDSWriter, StreamingDataset
from streaming.base.util import clean_stale_shared_memory

logging.disable(logging.CRITICAL)
with MDSWriter(out="frames", columns={"frame_index": "int"}) as writer:
    for number in range(1000):
        writer.write({"frame_index": number})

seen = {}
for algorithm, nodes in (("py1e", None), ("py1s", None), ("py2s", None), ("py1e", 64)):
    clean_stale_shared_memory()
    options = {"shuffle": True, "shuffle_algo": algorithm, "num_canonical_nodes": nodes}
    dataset = StreamingDataset(local="frames", batch_size=8, **options)
    frames = [int(frame["frame_index"]) for frame in dataset]
    seen[f"{algorithm}, {nodes or 'no'} nodes given"] = [len(dataset), len(frames), len(set(frames))]
    del dataset
clean_stale_shared_memory()
for name, (length, frames, different) in seen.items():
    print(f"{name}: len() {length}, {frames} frames, {different} different")

expected = {
    "py1e, no nodes given": [1000, 1000, 1000],
    "py1s, no nodes given": [1000, 1024, 1000],
    "py2s, no nodes given": [1000, 1024, 1000],
    "py1e, 64 nodes given": [1000, 1024, 1000],
}
if seen != expected:
    sys.exit(f"CHANGED: expected {expected}")
print("As described.")
END
