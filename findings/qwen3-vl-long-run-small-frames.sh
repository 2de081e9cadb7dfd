#!/bin/sh
# Guess: Qwen3-VL's video processor gives the frames of a long run the size that those of a short run have.
# What happens: its largest size is one for all frames of a video together. Of 640 x 480, with the processor's own
#   settings, frames are 352 x 256 in a run of 8, 64 x 64 in one of 128, and 32 x 32 in one of 512: two patches by two.
#   Frames of the same run, scored in windows of another length, are other pictures. Nothing warns of it.
# Versions: transformers 5.23.0, tokenizers 0.23.3, torch 2.11.0, torchvision 0.26.0, numpy 2.2.6
# Output on 29 November 2026:
#   8 frames of 640 x 480: each 352 x 256
#   32 frames of 640 x 480: each 160 x 128
#   128 frames of 640 x 480: each 64 x 64
#   512 frames of 640 x 480: each 32 x 32
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
import sys

import numpy as np
from transformers import Qwen3VLVideoProcessor
from transformers.utils import logging
from transformers.video_utils import VideoMetadata

logging.set_verbosity_error()
PATCH = 16
processor = Qwen3VLVideoProcessor(patch_size=PATCH)
seen = {}
for frames in (8, 32, 128, 512):
    video = np.zeros((frames, 480, 640, 3), np.uint8)
    metadata = VideoMetadata(total_num_frames=frames, fps=2, frames_indices=list(range(frames)))
    inputs = processor(videos=[video], video_metadata=[metadata], do_sample_frames=False)
    _, high, wide = inputs["video_grid_thw"][0].tolist()
    seen[frames] = [wide * PATCH, high * PATCH]
    print(f"{frames} frames of 640 x 480: each {seen[frames][0]} x {seen[frames][1]}")

expected = {
    8: [352, 256],
    32: [160, 128],
    128: [64, 64],
    512: [32, 32],
}
if seen != expected:
    sys.exit(f"CHANGED: expected {expected}")
print("As described.")
END
