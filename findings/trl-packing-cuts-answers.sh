#!/bin/sh
# Guess: packing puts samples beside each other, and those that do not fit into rows of their own: no token is lost.
# What happens: TRL's default `bfd` cuts a sample that is longer than a row, and drops the rest: three samples of 9
#   tokens, in rows of 8, lose one token each, the answer's last. `bfd_split` and `wrapped` keep all. Nothing warns of
#   it.
# Versions: trl 1.16.0, datasets 4.8.5, accelerate 1.15.0, transformers 5.23.0, tokenizers 0.23.3, torch 2.11.0, numpy
#   2.2.6
# Output on 29 November 2026:
#   bfd: rows of [8, 8, 8] tokens, lost [8, 108, 208]
#   bfd_split: rows of [8, 8, 8, 3] tokens, lost []
#   wrapped: rows of [8, 8, 8, 3] tokens, lost []
set -eu
packages="trl==1.16.0 datasets==4.8.5 accelerate==1.15.0 transformers==5.23.0 tokenizers==0.23.3 torch==2.11.0 numpy==2.2.6"
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
from trl import pack_dataset

datasets.disable_progress_bars()
samples = datasets.Dataset.from_dict({"input_ids": [list(range(start, start + 9)) for start in (0, 100, 200)]})
seen = {}
for strategy in ("bfd", "bfd_split", "wrapped"):
    rows = pack_dataset(samples, seq_length=8, strategy=strategy)["input_ids"]
    kept = {token for row in rows for token in row}
    seen[strategy] = [[len(row) for row in rows], sorted(set(sum(samples["input_ids"], [])) - kept)]
    print(f"{strategy}: rows of {seen[strategy][0]} tokens, lost {seen[strategy][1]}")

expected = {
    "bfd": [[8, 8, 8], [8, 108, 208]],
    "bfd_split": [[8, 8, 8, 3], []],
    "wrapped": [[8, 8, 8, 3], []],
}
if seen != expected:
    sys.exit(f"CHANGED: expected {expected}")
print("As described.")
END
