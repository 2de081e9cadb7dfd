#!/bin/sh
# Guess: a reward model's score is read from the last token that the attention mask keeps.
# What happens: given input_ids, from the last one that is not the padding token, whatever the mask says; given
#   inputs_embeds, as a model with pictures is, from the last position: from padding, in each row but the longest of a
#   batch. A log line says so.
# Versions: transformers 5.23.0, torch 2.11.0, numpy 2.2.6
# Output on 27 November 2026:
#   input_ids, alone: -0.1868
#   input_ids, padded: -0.1868, the same
#   input_ids, masked tokens of another kind: -0.0305, another score
#   inputs_embeds, alone: -0.1868, the same
#   inputs_embeds, padded and masked: -0.0836, another score
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
from transformers import Qwen3Config, Qwen3ForSequenceClassification
from transformers.utils import logging

logging.set_verbosity_error()
torch.manual_seed(0)
padding = 0
config = Qwen3Config(
    vocab_size=50, hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4,
    num_key_value_heads=2, head_dim=8, num_labels=1, pad_token_id=padding,
)
model = Qwen3ForSequenceClassification(config).eval()
alone = torch.tensor([[5, 6, 7, 8]])
padded = torch.tensor([[5, 6, 7, 8, padding, padding]])
mask = (padded != padding).long()
other = torch.tensor([[5, 6, 7, 8, 9, 9]])  # padded with a token that is not the padding token, and masked
embed = model.get_input_embeddings()
with torch.no_grad():
    score = model(input_ids=alone).logits.item()
    scores = {
        "input_ids, padded": model(input_ids=padded, attention_mask=mask).logits.item(),
        "input_ids, masked tokens of another kind": model(input_ids=other, attention_mask=mask).logits.item(),
        "inputs_embeds, alone": model(inputs_embeds=embed(alone)).logits.item(),
        "inputs_embeds, padded and masked": model(inputs_embeds=embed(padded), attention_mask=mask).logits.item(),
    }
seen = {}
print(f"input_ids, alone: {score:.4f}")
for name, value in scores.items():
    seen[name] = abs(value - score) < 1e-5
    print(f"{name}: {value:.4f}, {'the same' if seen[name] else 'another score'}")

expected = {
    "input_ids, padded": True,
    "input_ids, masked tokens of another kind": False,
    "inputs_embeds, alone": True,
    "inputs_embeds, padded and masked": False,
}
if seen != expected:
    sys.exit(f"CHANGED: expected {expected}")
print("As described.")
END
