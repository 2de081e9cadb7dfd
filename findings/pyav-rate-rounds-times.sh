#!/bin/sh
# Guess: Frames with times in milliseconds keep them in a video that PyAV writes, whatever rate the stream was added
#   with.
# What happens: The encoder counts in steps of 1 / rate: times are rounded to those, two frames have the same, and MP4
#   raises at the second of them. The frames' own time base does not matter; that of the stream's codec context, set by
#   hand, keeps them.
# Versions: av 19.0.2, numpy 2.4.6
# Output on 28 November 2026:
#   times of the frames: [0, 33, 66, 100, 140, 150, 160, 230, 233, 300]
#   Matroska: [0, 33, 67, 100, 133, 167, 167, 233, 233, 300]
#   MP4: ArgumentError
#   MP4, time base of the codec context set: [0, 33, 66, 100, 140, 150, 160, 230, 233, 300]
set -eu
packages="av==19.0.2 numpy==2.4.6"
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
from fractions import Fraction

import av
import numpy as np

TIMES = [0, 33, 66, 100, 140, 150, 160, 230, 233, 300]
MILLISECONDS = Fraction(1, 1000)


def written(path, is_set):
    """Times in ms that the video has, frame by frame."""
    with av.open(path, "w") as video:
        stream = video.add_stream("libx264", rate=30, width=64, height=64, pix_fmt="yuv420p")
        if is_set:
            stream.codec_context.time_base = MILLISECONDS
        for time in TIMES:
            frame = av.VideoFrame.from_ndarray(np.zeros((64, 64, 3), np.uint8), format="rgb24")
            frame.pts, frame.time_base = time, MILLISECONDS
            video.mux(stream.encode(frame))
        video.mux(stream.encode())
    with av.open(path) as video:
        return [round(1000 * frame.time) for frame in video.decode(video=0)]


seen = {"times of the frames": TIMES, "Matroska": written("run.mkv", False)}
try:
    seen["MP4"] = written("run.mp4", False)
except av.FFmpegError as error:
    seen["MP4"] = type(error).__name__
seen["MP4, time base of the codec context set"] = written("set.mp4", True)
for name, value in seen.items():
    print(f"{name}: {value}")

expected = {
    "times of the frames": TIMES,
    "Matroska": [0, 33, 67, 100, 133, 167, 167, 233, 233, 300],
    "MP4": "ArgumentError",
    "MP4, time base of the codec context set": TIMES,
}
if seen != expected:
    sys.exit(f"CHANGED: expected {expected}")
print("As described.")
END
