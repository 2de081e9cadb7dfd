#!/bin/sh
# Guess: a joint that stood still in all demonstrations is normalised to about 0, and to about 0 a thousandth beside
#   it.
# What happens: a thousandth of a radian beside it is 99,999 by mean and deviation, 199,996 by limits or quantiles: the
#   smallest divisor is 1e-8, and nothing is clipped. At rest it is -1 by limits or quantiles: the lower end of its
#   range.
# Versions: lerobot 0.6.1, torch 2.11.0, torchvision 0.26.0, numpy 2.2.6
# Output on 27 November 2026:
#   MEAN_STD: a joint that stood at 0.25, now at 0.25: 0
#   MEAN_STD: a joint that stood at 0.25, now at 0.251: 99999
#   MIN_MAX: a joint that stood at 0.25, now at 0.25: -1
#   MIN_MAX: a joint that stood at 0.25, now at 0.251: 199996
#   QUANTILES: a joint that stood at 0.25, now at 0.25: -1
#   QUANTILES: a joint that stood at 0.25, now at 0.251: 199996
set -eu
packages="lerobot==0.6.1 torch==2.11.0 torchvision==0.26.0 numpy==2.2.6"
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

os.environ["HF_HUB_OFFLINE"] = "1"
import torch
from lerobot.configs.types import FeatureType, NormalizationMode, PolicyFeature
from lerobot.processor import NormalizerProcessorStep, TransitionKey

name = "observation.state"
still = [0.25]
stats = {name: {"mean": still, "std": [0.0]} | dict.fromkeys(("min", "max", "q01", "q10", "q90", "q99"), still)}
seen = {}
for mode in ("MEAN_STD", "MIN_MAX", "QUANTILES"):
    normalizer = NormalizerProcessorStep(
        features={name: PolicyFeature(FeatureType.STATE, (1,))},
        norm_map={FeatureType.STATE: NormalizationMode[mode]},
        stats=stats,
    )
    for state in (0.25, 0.251):
        batch = {TransitionKey.OBSERVATION: {name: torch.tensor([[state]])}}
        value = normalizer(batch)[TransitionKey.OBSERVATION][name].item()
        seen[f"{mode} {state}"] = round(value)
        print(f"{mode}: a joint that stood at 0.25, now at {state}: {value:.0f}")

expected = {
    "MEAN_STD 0.25": 0,
    "MEAN_STD 0.251": 99999,
    "MIN_MAX 0.25": -1,
    "MIN_MAX 0.251": 199996,
    "QUANTILES 0.25": -1,
    "QUANTILES 0.251": 199996,
}
if seen != expected:
    sys.exit(f"CHANGED: expected {expected}")
print("As described.")
END
