#!/bin/sh
# Guess: 8 frames of a video, or one a second, reach from its beginning to its end, and are as many as asked for.
# What happens: of 300 frames at 30 a second, four of seven processors show a model none of the last 37, InternVL's
#   none of the last 18; only Qwen3-VL's shows the last. GLM-4V's takes 20. Asked for one a second, a video of 1.5
#   seconds is one frame, for GLM-4V the first one twice, and 32 frames for Gemma 4. Whether the task was done is seen
#   in what is left out.
# Versions: transformers 5.23.0, torch 2.11.0, torchvision 0.26.0, numpy 2.2.6
# Output on 28 November 2026:
#   Qwen2VL: 8, the last 262; one a second: 4, [0, 11, 22, 33]
#   Qwen3VL: 8, the last 299; one a second: 4, [0, 15, 29, 44]
#   LlavaOnevision: 8, the last 262; one a second: 1, [0]
#   InternVL: 8, the last 281; one a second: 1, [22]
#   Glm4v: 20, the last 285; one a second: 2, [0, 0]
#   VideoLlama3: 8, the last 262; one a second: 4, [0, 11, 22, 33]
#   Gemma4: 8, the last 262; one a second: 32, [0, 1, 2, 4]
set -eu
packages="transformers==5.23.0 torch==2.11.0 torchvision==0.26.0 numpy==2.2.6"
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

import transformers
from transformers.utils import logging
from transformers.video_utils import VideoMetadata

warnings.simplefilter("ignore")
logging.set_verbosity_error()
processors = ["Qwen2VL", "Qwen3VL", "LlavaOnevision", "InternVL", "Glm4v", "VideoLlama3", "Gemma4"]


def frames(name, total, **options):
    processor = getattr(transformers, f"{name}VideoProcessor")()
    video = VideoMetadata(total_num_frames=total, fps=30, duration=total / 30)
    return [int(frame) for frame in processor.sample_frames(video, **options)]


seen = {}
for name in processors:
    eight = frames(name, 300, num_frames=8)
    second = frames(name, 45, fps=1)
    seen[name] = [len(eight), eight[-1], len(second), second[:4]]
    print(f"{name}: {len(eight)}, the last {eight[-1]}; one a second: {len(second)}, {second[:4]}")

expected = {
    "Qwen2VL": [8, 262, 4, [0, 11, 22, 33]],
    "Qwen3VL": [8, 299, 4, [0, 15, 29, 44]],
    "LlavaOnevision": [8, 262, 1, [0]],
    "InternVL": [8, 281, 1, [22]],
    "Glm4v": [20, 285, 2, [0, 0]],
    "VideoLlama3": [8, 262, 4, [0, 11, 22, 33]],
    "Gemma4": [8, 262, 32, [0, 1, 2, 4]],
}
if seen != expected:
    sys.exit(f"CHANGED: expected {expected}")
print("As described.")
END
