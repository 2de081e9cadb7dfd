#!/bin/sh
# Guess: Two halves of an adapter, added by add_weighted_adapter(), are that adapter.
# What happens: combination_type "linear" adds the factors A and B, not their products: two halves of one adapter are
#   twice the adapter, and the mean of two close checkpoints is twice as strong. "ties" halves it; "svd" and "cat" give
#   the mean.
# Versions: peft 0.21.2, torch 2.11.0
# Output on 28 November 2026:
#   two halves, linear: 2.0
#   two halves, dare_linear: 2.0
#   two halves, ties: 0.5
#   two halves, svd: 1.0
#   two halves, cat: 1.0
#   mean of two checkpoints, linear: 2.0
#   mean of two checkpoints, cat: 1.0
set -eu
packages="peft==0.21.2 torch==2.11.0"
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
logging.disable(logging.CRITICAL)
import torch
from peft import LoraConfig, get_peft_model

torch.manual_seed(0)
config = LoraConfig(r=4, lora_alpha=8, target_modules=["0"], init_lora_weights=False)
network = torch.nn.Sequential(torch.nn.Linear(16, 16, bias=False))
model = get_peft_model(network, config, adapter_name="reach")
for adapter in ("copy", "later"):
    model.add_adapter(adapter, config)
layer = model.base_model.model[0]
for factor in (layer.lora_A, layer.lora_B):
    weight = factor["reach"].weight.data
    factor["copy"].weight.data = weight.clone()
    factor["later"].weight.data = weight + 0.01 * torch.randn_like(weight)


def strength(adapters, kind):
    """The merged adapter's part along the mean of the two, over that of the mean."""
    name = f"{kind}-{'-'.join(adapters)}"
    model.add_weighted_adapter(adapters, [0.5, 0.5], name, combination_type=kind, density=1.0)
    mean = sum(layer.get_delta_weight(adapter).detach() for adapter in adapters) / 2
    merged = layer.get_delta_weight(name).detach()
    return round(float((merged * mean).sum() / mean.square().sum()), 2)


kinds = ("linear", "dare_linear", "ties", "svd", "cat")
seen = {f"two halves, {kind}": strength(["reach", "copy"], kind) for kind in kinds}
for kind in ("linear", "cat"):
    seen[f"mean of two checkpoints, {kind}"] = strength(["reach", "later"], kind)
for name, value in seen.items():
    print(f"{name}: {value}")

expected = {
    "two halves, linear": 2.0,
    "two halves, dare_linear": 2.0,
    "two halves, ties": 0.5,
    "two halves, svd": 1.0,
    "two halves, cat": 1.0,
    "mean of two checkpoints, linear": 2.0,
    "mean of two checkpoints, cat": 1.0,
}
if seen != expected:
    sys.exit(f"CHANGED: expected {expected}")
print("As described.")
END
