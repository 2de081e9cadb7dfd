#!/bin/sh
# Guess: `max_pixels`, given to a video processor as Qwen's pages give it, bounds the frames.
# What happens: Qwen2-VL's processor turns it into its `size`. Qwen3-VL's takes it, keeps it as an attribute, and
#   makes frames of 352 x 256 as without; nothing says so. Its image processor, of the same model, heeds it. `size`
#   bounds both; given at the call, it raises for videos of Qwen3-VL.
# Versions: transformers 5.23.0, tokenizers 0.23.3, torch 2.11.0, torchvision 0.26.0, numpy 2.2.6
# Output on 29 November 2026:
#   images of both: without 640 x 480, max_pixels 128 x 96, size 128 x 96
#   video, Qwen2-VL: without 640 x 480, max_pixels 128 x 96, size 128 x 96
#   video, Qwen3-VL: without 352 x 256, max_pixels 352 x 256, size 32 x 32
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
from transformers import Qwen2VLImageProcessor, Qwen2VLVideoProcessor, Qwen3VLVideoProcessor
from transformers.utils import logging
from transformers.video_utils import VideoMetadata

logging.set_verbosity_error()
FRAMES = 8
AREA = 128 * 128
settings = {
    "without": {},
    "max_pixels": {"max_pixels": AREA},
    "size": {"size": {"shortest_edge": 32 * 32, "longest_edge": AREA}},
}
video = np.zeros((FRAMES, 480, 640, 3), np.uint8)
metadata = VideoMetadata(total_num_frames=FRAMES, fps=2, frames_indices=list(range(FRAMES)))


def frame_size(kind, setting):
    processor = kind(patch_size=16, **settings[setting])
    if kind is Qwen2VLImageProcessor:
        grid = processor(images=[video[0]])["image_grid_thw"]
    else:
        inputs = processor(videos=[video], video_metadata=[metadata], do_sample_frames=False)
        grid = inputs["video_grid_thw"]
    _, high, wide = grid[0].tolist()
    return [wide * 16, high * 16]


seen = {}
kinds = {
    "images of both": Qwen2VLImageProcessor,
    "video, Qwen2-VL": Qwen2VLVideoProcessor,
    "video, Qwen3-VL": Qwen3VLVideoProcessor,
}
for name, kind in kinds.items():
    seen[name] = {setting: frame_size(kind, setting) for setting in settings}
    print(f"{name}: " + ", ".join(f"{setting} {w} x {h}" for setting, (w, h) in seen[name].items()))

expected = {
    "images of both": {"without": [640, 480], "max_pixels": [128, 96], "size": [128, 96]},
    "video, Qwen2-VL": {"without": [640, 480], "max_pixels": [128, 96], "size": [128, 96]},
    "video, Qwen3-VL": {"without": [352, 256], "max_pixels": [352, 256], "size": [32, 32]},
}
if seen != expected:
    sys.exit(f"CHANGED: expected {expected}")
print("As described.")
END
