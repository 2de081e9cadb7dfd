#!/bin/sh
# Guess: a StatefulDataLoader that is resumed gives the batches that one without a stop gives, with and without
#   workers.
# What happens: the epoch in which it stopped is finished as guessed. Without workers, the epochs behind it have other
#   orders than without the stop, of the same seed; with two workers they have the same.
# Versions: torchdata 0.11.0, torch 2.11.0, numpy 2.2.6
# Output on 29 November 2026:
#   0 workers, epoch 0: [[8, 0, 5], [9, 7, 4], [2, 10, 3], [1, 11, 6]], resumed [[8, 0, 5], [9, 7, 4], [2, 10, 3], [1, 11, 6]]
#   0 workers, epoch 1: [[3, 9, 8], [0, 2, 1], [5, 4, 11], [7, 10, 6]], resumed [[2, 3, 11], [4, 1, 9], [6, 0, 5], [7, 8, 10]]
#   2 workers, epoch 0: [[3, 9, 8], [0, 2, 1], [5, 4, 11], [7, 10, 6]], resumed [[3, 9, 8], [0, 2, 1], [5, 4, 11], [7, 10, 6]]
#   2 workers, epoch 1: [[11, 2, 10], [5, 7, 3], [4, 8, 9], [1, 0, 6]], resumed [[11, 2, 10], [5, 7, 3], [4, 8, 9], [1, 0, 6]]
set -eu
packages="torchdata==0.11.0 torch==2.11.0 numpy==2.2.6"
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

warnings.simplefilter("ignore")
import torch
from torchdata.stateful_dataloader import StatefulDataLoader


def loader(workers):
    generator = torch.Generator().manual_seed(0)
    return StatefulDataLoader(
        range(12), batch_size=3, shuffle=True, num_workers=workers, generator=generator, collate_fn=list
    )


seen = {}
for workers in (0, 2):
    whole = loader(workers)
    epochs = [list(whole), list(whole), list(whole)]
    stopped = loader(workers)
    batches = iter(stopped)
    head = [next(batches), next(batches)]
    resumed = loader(workers)
    resumed.load_state_dict(stopped.state_dict())
    again = [head + list(resumed), list(resumed), list(resumed)]
    seen[workers] = [first == second for first, second in zip(epochs, again)]
    for number in (0, 1):
        print(f"{workers} workers, epoch {number}: {epochs[number]}, resumed {again[number]}")

expected = {
    0: [True, False, False],
    2: [True, True, True],
}
if seen != expected:
    sys.exit(f"CHANGED: expected {expected}")
print("As described.")
END
