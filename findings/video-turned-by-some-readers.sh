#!/bin/sh
# Guess: two readers give the pictures of one video in one shape.
# What happens: of a video recorded upright, as phones and action cameras on grippers do (its file says how to turn
#   it), OpenCV and decord turn the pictures, PyAV and so LeRobot's reader by PyAV do not: 96 x 64 and 64 x 96.
# Versions: opencv-python-headless 4.13.0.92, decord 0.6.0, av 19.0.2, numpy 2.2.6
# Output on 27 November 2026:
#   (not yet run)
set -eu
packages="opencv-python-headless==4.13.0.92 decord==0.6.0 av==19.0.2 numpy==2.2.6"
python=${PYTHON:-python3}
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
if command -v uv >/dev/null; then
  uv venv --quiet --python "$(command -v "$python")" env
  uv pip install --quiet --python env/bin/python $packages
else
  "$python" -m venv env
  env/bin/python -m pip install --quiet $packages
fi
env/bin/python - <<'END'
import struct
import sys

import av
import cv2
import decord
import numpy as np

with av.open("level.mp4", "w") as container:
    stream = container.add_stream("libx264", rate=30)
    stream.width, stream.height, stream.pix_fmt = 96, 64, "yuv420p"
    for number in range(10):
        container.mux(stream.encode(av.VideoFrame.from_ndarray(np.full((64, 96, 3), number, np.uint8), format="rgb24")))
    container.mux(stream.encode())

# The matrix of the track's header (ISO/IEC 14496-12): a quarter turn
content = open("level.mp4", "rb").read()
matrix = content.index(b"tkhd") + 44
one = 1 << 16
level = struct.pack(">9i", one, 0, 0, 0, one, 0, 0, 0, 1 << 30)
turned = struct.pack(">9i", 0, one, 0, -one, 0, 0, 64 * one, 0, 1 << 30)
assert content[matrix : matrix + 36] == level
with open("upright.mp4", "wb") as file:
    file.write(content[:matrix] + turned + content[matrix + 36 :])

with av.open("upright.mp4") as container:
    frame = next(container.decode(video=0))
seen = {
    "PyAV": [frame.to_ndarray(format="rgb24").shape[:2], frame.rotation],
    "OpenCV": cv2.VideoCapture("upright.mp4").read()[1].shape[:2],
    "decord": decord.VideoReader("upright.mp4")[0].shape[:2],
}
print(f"PyAV: {seen['PyAV'][0]}, and frame.rotation {seen['PyAV'][1]}")
print(f"OpenCV: {seen['OpenCV']}")
print(f"decord: {seen['decord']}")

expected = {"PyAV": [(64, 96), -90], "OpenCV": (96, 64), "decord": (96, 64)}
if seen != expected:
    sys.exit(f"CHANGED: expected {expected}")
print("As described.")
END
