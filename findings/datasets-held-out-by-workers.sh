#!/bin/sh
# Guess: `skip(8)` of a stream has none of the rows of its `take(8)`, whoever reads it.
# What happens: with workers, each takes and skips its share of the eight, from the head of its own shards. What one
#   process holds out by take(8) is in part trained on by skip(8) with two workers: four of eight, with four workers
#   six. The number of rows is right. Nothing warns of it.
# Versions: datasets 5.2.0, torch 2.11.0, numpy 2.2.6
# Output on 29 November 2026:
#   held out, read without workers: [0, 1, 2, 3, 4, 5, 6, 7]
#   0 workers: 32 trained on, of these held out []
#   1 workers: 32 trained on, of these held out []
#   2 workers: 32 trained on, of these held out [4, 5, 6, 7]
#   4 workers: 32 trained on, of these held out [2, 3, 4, 5, 6, 7]
set -eu
packages="datasets==5.2.0 torch==2.11.0 numpy==2.2.6"
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

warnings.filterwarnings("ignore", message="This DataLoader will create")
from datasets import Dataset
from torch.utils.data import DataLoader

stream = Dataset.from_dict({"episode": range(40)}).to_iterable_dataset(num_shards=4)


def episodes(rows, workers):
    return [int(row["episode"]) for row in DataLoader(rows, batch_size=None, num_workers=workers)]


held_out = episodes(stream.take(8), 0)
print(f"held out, read without workers: {held_out}")
seen = {}
for workers in (0, 1, 2, 4):
    trained = episodes(stream.skip(8), workers)
    seen[workers] = [len(trained), sorted(set(trained) & set(held_out))]
    print(f"{workers} workers: {len(trained)} trained on, of these held out {seen[workers][1]}")

expected = {
    0: [32, []],
    1: [32, []],
    2: [32, [4, 5, 6, 7]],
    4: [32, [2, 3, 4, 5, 6, 7]],
}
if seen != expected:
    sys.exit(f"CHANGED: expected {expected}")
print("As described.")
END
