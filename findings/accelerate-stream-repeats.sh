#!/bin/sh
# Guess: with even_batches=False, each of ten samples comes once, by two processes together.
# What happens: of a dataset with a length it does; of a stream, an IterableDataset, the last batch is filled up with
#   samples from its beginning, and even_batches changes nothing: six of ten come twice, in an evaluation, too. Nothing
#   warns of it.
# Versions: accelerate 1.15.0, torch 2.11.0, numpy 2.2.6
# Output on 29 November 2026:
#   list: samples that come twice 6, with even_batches=False 0
#   stream: samples that come twice 6, with even_batches=False 6
set -eu
packages="accelerate==1.15.0 torch==2.11.0 numpy==2.2.6"
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
from collections import Counter

logging.disable(logging.CRITICAL)
from accelerate.data_loader import prepare_data_loader
from torch.utils.data import DataLoader, IterableDataset


class Stream(IterableDataset):
    def __iter__(self):
        return iter(range(10))


def repeated(dataset, even):
    """How many of ten samples come more often than once, to two processes."""
    counts = Counter()
    for process in range(2):
        loader = prepare_data_loader(
            DataLoader(dataset, batch_size=4),
            num_processes=2,
            process_index=process,
            even_batches=even,
            put_on_device=False,
        )
        for batch in getattr(loader, "base_dataloader", loader):
            counts.update(batch.tolist())
    return sum(count > 1 for count in counts.values())


seen = {}
for name, dataset in {"list": list(range(10)), "stream": Stream()}.items():
    seen[name] = [repeated(dataset, True), repeated(dataset, False)]
    print(f"{name}: samples that come twice {seen[name][0]}, with even_batches=False {seen[name][1]}")

expected = {
    "list": [6, 0],
    "stream": [6, 6],
}
if seen != expected:
    sys.exit(f"CHANGED: expected {expected}")
print("As described.")
END
