#!/bin/sh
# Guess: Transitions without a reward, added to a replay buffer that has rewards, raise, or have none.
# What happens: They are stored, and read back with a reward: that of the transition whose place they took. In places
#   that were not used before it is what memory held. The other way round, where only later transitions have a reward,
#   earlier ones get 0.
# Versions: torch 2.11.0, torchrl 0.14.1, tensordict 0.14.3
# Output on 30 November 2026:
#   demonstrations in places of rewarded ones: obs [5.0, 6.0], reward [1.0, 0.5]
#   rewarded ones behind demonstrations: obs [5.0, 6.0, 1.0, 2.0], reward [0.0, 0.0, 1.0, 0.5]
set -eu
packages="torch==2.11.0 torchrl==0.14.1 tensordict==0.14.3"
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
import warnings

warnings.simplefilter("ignore")
import torch
import torchrl
from tensordict import TensorDict
from torchrl.data import LazyTensorStorage, ReplayBuffer

torchrl.logger.setLevel(logging.ERROR)
REWARDED = TensorDict({"obs": torch.tensor([1.0, 2.0]), "reward": torch.tensor([1.0, 0.5])}, [2])
DEMONSTRATED = TensorDict({"obs": torch.tensor([5.0, 6.0])}, [2])


def held(size, *added):
    buffer = ReplayBuffer(storage=LazyTensorStorage(size))
    for transitions in added:
        buffer.extend(transitions)
    rows = buffer[:]
    return f"obs {rows['obs'].tolist()}, reward {rows['reward'].tolist()}"


seen = {
    "demonstrations in places of rewarded ones": held(2, REWARDED, DEMONSTRATED),
    "rewarded ones behind demonstrations": held(4, DEMONSTRATED, REWARDED),
}

expected = {
    "demonstrations in places of rewarded ones": "obs [5.0, 6.0], reward [1.0, 0.5]",
    "rewarded ones behind demonstrations": "obs [5.0, 6.0, 1.0, 2.0], reward [0.0, 0.0, 1.0, 0.5]",
}

for name, value in seen.items():
    print(f"{name}: {value}")
if seen != expected:
    sys.exit(f"CHANGED: expected {expected}")
print("As described.")
END
