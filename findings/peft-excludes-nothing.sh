#!/bin/sh
# Guess: LoRA with target_modules="all-linear" and exclude_modules=["visual"] leaves a Qwen3-VL's vision tower alone.
# What happens: names in a list are compared with the ends of modules' names, so "visual" excludes nothing: 12 of 26
#   adapters are in the tower, and no warning says so. As a text, "visual" warns that it excludes nothing; beside a
#   name that does, such as "down_proj", a list does not. The pattern ".*visual.*" works.
# Versions: peft 0.21.2, transformers 5.23.0, tokenizers 0.23.3, torch 2.11.0, torchvision 0.26.0, numpy 2.2.6
# Output on 29 November 2026:
#   a list of visual: adapters 26, in the vision tower 12, warned: False
#   a list of visual and down_proj: adapters 24, in the vision tower 12, warned: False
#   the text visual: adapters 26, in the vision tower 12, warned: True
#   the pattern .*visual.*: adapters 14, in the vision tower 0, warned: False
set -eu
packages="peft==0.21.2 transformers==5.23.0 tokenizers==0.23.3 torch==2.11.0 torchvision==0.26.0 numpy==2.2.6"
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
import copy
import sys
import warnings

from peft import LoraConfig, get_peft_model
from transformers import Qwen3VLConfig, Qwen3VLForConditionalGeneration

rope = {"rope_type": "default", "rope_theta": 10_000.0, "mrope_section": [2, 3, 3]}
text = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
text |= {"num_key_value_heads": 1, "head_dim": 16, "vocab_size": 300, "rope_parameters": rope}
vision = {"hidden_size": 32, "intermediate_size": 64, "depth": 2, "num_heads": 2, "out_hidden_size": 32}
vision |= {"deepstack_visual_indexes": [0], "patch_size": 16}
model = Qwen3VLForConditionalGeneration(Qwen3VLConfig(text_config=text, vision_config=vision))

seen = {}
choices = {
    "a list of visual": ["visual"],
    "a list of visual and down_proj": ["visual", "down_proj"],
    "the text visual": "visual",
    "the pattern .*visual.*": ".*visual.*",
}
for choice, excluded in choices.items():
    config = LoraConfig(r=2, target_modules="all-linear", exclude_modules=excluded)
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        adapted = get_peft_model(copy.deepcopy(model), config)
    names = [name for name, _ in adapted.named_parameters() if "lora_A" in name]
    warned = any("exclude_modules" in str(warning.message) for warning in told)
    seen[choice] = [len(names), sum(".visual." in name for name in names), warned]
    print(f"{choice}: adapters {len(names)}, in the vision tower {seen[choice][1]}, warned: {warned}")

expected = {
    "a list of visual": [26, 12, False],
    "a list of visual and down_proj": [24, 12, False],
    "the text visual": [26, 12, True],
    "the pattern .*visual.*": [14, 0, False],
}
if seen != expected:
    sys.exit(f"CHANGED: expected {expected}")
print("As described.")
END
