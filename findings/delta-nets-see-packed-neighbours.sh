#!/bin/sh
# Guess: transformers keeps samples that are packed into one row apart where each one's positions begin anew, in Qwen3.5
#   as in Qwen3; or it refuses such a row.
# What happens: in Qwen3 the second sample is what it is alone. In Qwen3.5 it is another one, without a warning: the
#   states of its gated delta nets go on from sample to sample. With bounds (cu_seq_lens_q) it is refused without the
#   package flash-linear-attention; positions alone are not looked at.
# Versions: transformers 5.23.0, torch 2.11.0, numpy 2.2.6
# Output on 30 November 2026:
#   Qwen3, positions: the same
#   Qwen3.5, positions: another
#   Qwen3.5, positions and bounds: refused
set -eu
packages="transformers==5.23.0 torch==2.11.0 numpy==2.2.6"
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

import torch
from transformers import Qwen3_5TextConfig, Qwen3_5TextModel, Qwen3Config, Qwen3Model
from transformers.utils import logging

logging.set_verbosity_error()
shared = {"vocab_size": 50, "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "head_dim": 16}
shared |= {"num_attention_heads": 2, "num_key_value_heads": 1, "attn_implementation": "eager"}
rope = {"rope_type": "default", "rope_theta": 10_000.0, "mrope_section": [3, 3, 2], "partial_rotary_factor": 1.0}
linear = {"linear_num_key_heads": 1, "linear_num_value_heads": 2}
linear |= {"linear_key_head_dim": 16, "linear_value_head_dim": 16}
torch.manual_seed(0)
models = {
    "Qwen3": Qwen3Model(Qwen3Config(**shared)).eval(),
    "Qwen3.5": Qwen3_5TextModel(
        Qwen3_5TextConfig(
            **shared, **linear, rope_parameters=rope, layer_types=["linear_attention", "full_attention"]
        )
    ).eval(),
}
first, second = torch.tensor([[5, 6, 7, 8, 9]]), torch.tensor([[10, 11, 12]])
row = torch.cat([first, second], 1)
positions = torch.tensor([[0, 1, 2, 3, 4, 0, 1, 2]])
ends = torch.tensor([0, 5, 8], dtype=torch.int32)
bounds = {"cu_seq_lens_q": ends, "cu_seq_lens_k": ends, "max_length_q": 5, "max_length_k": 5}
seen = {}
for name, way, options in (
    ("Qwen3", "positions", {}),
    ("Qwen3.5", "positions", {}),
    ("Qwen3.5", "positions and bounds", bounds),
):
    with torch.no_grad():
        alone = models[name](second, use_cache=False).last_hidden_state
        try:
            packed = models[name](row, position_ids=positions, use_cache=False, **options).last_hidden_state
        except ValueError:
            result = "refused"
        else:
            result = "the same" if torch.allclose(packed[:, 5:], alone, atol=1e-4) else "another"
    seen[f"{name}, {way}"] = result
    print(f"{name}, {way}: {result}")

expected = {
    "Qwen3, positions": "the same",
    "Qwen3.5, positions": "another",
    "Qwen3.5, positions and bounds": "refused",
}
if seen != expected:
    sys.exit(f"CHANGED: expected {expected}")
print("As described.")
END
