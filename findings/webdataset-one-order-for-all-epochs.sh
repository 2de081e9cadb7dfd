#!/bin/sh
# Guess: with shardshuffle, each epoch has its shards in another order, and short epochs (with_epoch) show all samples
#   by and by.
# What happens: the order is drawn with the same seed in each epoch: it is one order for the whole training, and of 20
#   samples in epochs of 7 the same 7 are shown, the other 13 never. With detshuffle=True epochs differ. Nothing warns
#   of it.
# Versions: webdataset 1.0.2, numpy 2.2.6
# Output on 29 November 2026:
#   shardshuffle=100: orders in 10 epochs 1, samples of 20 in 10 epochs of 7 7
#   and detshuffle=True: orders in 10 epochs 9, samples of 20 in 10 epochs of 7 20
set -eu
packages="webdataset==1.0.2 numpy==2.2.6"
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
import random
import sys

import webdataset as wds

for shard in range(4):
    with wds.TarWriter(f"{shard}.tar") as writer:
        for number in range(5):
            writer.write({"__key__": f"{shard}_{number}", "json": {}})
shards = [f"{shard}.tar" for shard in range(4)]
random.seed(0)


def epochs(dataset, count):
    return [[sample["__key__"] for sample in dataset] for _ in range(count)]


seen = {}
for name, more in {"shardshuffle=100": {}, "and detshuffle=True": {"detshuffle": True}}.items():
    settings = {"shardshuffle": 100, "seed": 0} | more
    whole = epochs(wds.WebDataset(shards, **settings), 10)
    short = epochs(wds.WebDataset(shards, **settings).with_epoch(7), 10)
    shown = {key for epoch in short for key in epoch}
    seen[name] = [len({tuple(epoch) for epoch in whole}), len(shown)]
    print(f"{name}: orders in 10 epochs {seen[name][0]}, samples of 20 in 10 epochs of 7 {seen[name][1]}")

expected = {
    "shardshuffle=100": [1, 7],
    "and detshuffle=True": [9, 20],
}
if seen != expected:
    sys.exit(f"CHANGED: expected {expected}")
print("As described.")
END
