#!/bin/sh
# Guess: Qwen3-VL's processor gives each pair of frames a time of its own, so that a model can say when.
# What happens: it writes times with one decimal. Of a video at 30 frames a second that is given whole, 20 pairs have
#   14 times: six share theirs with the pair before, and a model cannot name them apart. Nothing warns of it.
# Versions: transformers 5.23.0, tokenizers 0.23.3, torch 2.11.0, torchvision 0.26.0, numpy 2.2.6
# Output on 27 November 2026:
#   10 frames a second: 20 pairs, 20 times: 0.1 0.2 0.5 0.6 0.9 1.1 1.2 1.4 ...
#   20 frames a second: 20 pairs, 20 times: 0.0 0.1 0.2 0.3 0.4 0.5 0.6 0.7 ...
#   30 frames a second: 20 pairs, 14 times: 0.0 0.1 0.1 0.2 0.3 0.3 0.4 0.5 ...
set -eu
packages="transformers==5.23.0 tokenizers==0.23.3 torch==2.11.0 torchvision==0.26.0 numpy==2.2.6"
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
import re
import sys

import numpy as np
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast, Qwen2VLImageProcessor, Qwen3VLProcessor, Qwen3VLVideoProcessor
from transformers.utils import logging
from transformers.video_utils import VideoMetadata

logging.set_verbosity_error()

# A tokenizer of single bytes with Qwen's special tokens: no download
alphabet = {letter: number for number, letter in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}
tokenizer = Tokenizer(models.BPE(vocab=alphabet, merges=[]))
tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
tokenizer.decoder = decoders.ByteLevel()
special = ["<|endoftext|>", "<|im_end|>", "<|vision_start|>", "<|vision_end|>", "<|image_pad|>", "<|video_pad|>"]
tokenizer.add_special_tokens([AddedToken(token, special=True) for token in special])
processor = Qwen3VLProcessor(
    image_processor=Qwen2VLImageProcessor(patch_size=16),
    video_processor=Qwen3VLVideoProcessor(patch_size=16),
    tokenizer=PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token=special[0], eos_token=special[1]),
)

frames = 40
video = np.zeros((frames, 64, 64, 3), np.uint8)
seen = {}
for rate in (10, 20, 30):
    metadata = VideoMetadata(total_num_frames=frames, fps=rate, frames_indices=list(range(frames)))
    inputs = processor(
        text=["<|vision_start|><|video_pad|><|vision_end|>"], videos=[video], video_metadata=[metadata],
        do_sample_frames=False,
    )
    stamps = re.findall(r"<([\d.]+) seconds>", processor.tokenizer.decode(inputs["input_ids"][0]))
    seen[rate] = [len(stamps), len(set(stamps))]
    print(f"{rate} frames a second: {len(stamps)} pairs, {len(set(stamps))} times: {' '.join(stamps[:8])} ...")

expected = {10: [20, 20], 20: [20, 20], 30: [20, 14]}
if seen != expected:
    sys.exit(f"CHANGED: expected {expected}")
print("As described.")
END
