#!/bin/sh
# Guess: Two runs of which one says its outcome cannot be stacked, or the outcome stays where it is.
# What happens: `torch.stack` and `to_dict` raise, but `lazy_stack(...).contiguous()` leaves the outcome out of both,
#   without a warning; the lazy stack still gave it for the run that has it.
# Versions: torch 2.11.0, tensordict 0.15.3
# Output on 30 November 2026:
#   torch.stack: RuntimeError
#   to_dict of the lazy stack: RuntimeError
#   first run of the lazy stack: ['frames', 'success']
#   first run of contiguous(): ['frames']
set -eu
packages="torch==2.11.0 tensordict==0.15.3"
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
from tensordict import TensorDict, lazy_stack

RUNS = [
    TensorDict({"frames": torch.tensor(40), "success": torch.tensor(True)}, []),
    TensorDict({"frames": torch.tensor(50)}, []),
]


def outcome(function):
    try:
        return function()
    except Exception as error:
        return type(error).__name__


stacked = lazy_stack(RUNS)
seen = {
    "torch.stack": outcome(lambda: torch.stack(RUNS)),
    "to_dict of the lazy stack": outcome(stacked.to_dict),
    "first run of the lazy stack": sorted(stacked[0].keys()),
    "first run of contiguous()": sorted(stacked.contiguous()[0].keys()),
}

expected = {
    "torch.stack": "RuntimeError",
    "to_dict of the lazy stack": "RuntimeError",
    "first run of the lazy stack": ["frames", "success"],
    "first run of contiguous()": ["frames"],
}

for name, value in seen.items():
    print(f"{name}: {value}")
if seen != expected:
    sys.exit(f"CHANGED: expected {expected}")
print("As described.")
END
