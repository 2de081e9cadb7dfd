#!/bin/sh
# Guess: Video readers show a camera that was mounted upside down the same way up, or all leave it as stored.
# What happens: The file says by how much a picture is to be turned, and OpenCV, decord and imageio turn it. PyAV gives
#   it as stored, with the turn beside it in frame.rotation: by 180 degrees even the size is the same, and policies see
#   the scene upside down.
# Versions: av 19.0.2, opencv-python-headless 4.13.0.92, decord 0.6.0, imageio 2.38.1, imageio-ffmpeg 0.8.1, numpy 2.4.6
# Output on 28 November 2026:
#   PyAV: (64, 96, 3), brighter half: top
#   OpenCV: (64, 96, 3), brighter half: bottom
#   decord: (64, 96, 3), brighter half: bottom
#   imageio: (64, 96, 3), brighter half: bottom
#   PyAV, rotation: -180
set -eu
packages="av==19.0.2 opencv-python-headless==4.13.0.92 decord==0.6.0 imageio==2.38.1 imageio-ffmpeg==0.8.1 numpy==2.4.6"
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
import subprocess
import sys

import av
import cv2
import decord
import imageio.v3 as imageio
import numpy as np
from imageio_ffmpeg import get_ffmpeg_exe

picture = np.zeros((64, 96, 3), np.uint8)
picture[:32] = 200
with av.open("stored.mp4", "w") as container:
    stream = container.add_stream("libx264", rate=30)
    stream.width, stream.height, stream.pix_fmt = 96, 64, "yuv420p"
    for _ in range(30):
        container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
    container.mux(stream.encode())
turned = ["-display_rotation", "180", "-i", "stored.mp4", "-c", "copy", "camera.mp4"]
subprocess.run([get_ffmpeg_exe(), "-loglevel", "error", *turned], check=True)

with av.open("camera.mp4") as container:
    frame = next(container.decode(video=0))
pictures = {
    "PyAV": frame.to_ndarray(format="rgb24"),
    "OpenCV": cv2.VideoCapture("camera.mp4").read()[1],
    "decord": decord.VideoReader("camera.mp4")[0].asnumpy(),
    "imageio": imageio.imread("camera.mp4", index=0, plugin="FFMPEG"),
}
seen = {}
for name, shown in pictures.items():
    half = "top" if shown[:32].mean() > shown[32:].mean() else "bottom"
    seen[name] = f"{shown.shape}, brighter half: {half}"
seen["PyAV, rotation"] = frame.rotation
for name, value in seen.items():
    print(f"{name}: {value}")

expected = {
    "PyAV": "(64, 96, 3), brighter half: top",
    "OpenCV": "(64, 96, 3), brighter half: bottom",
    "decord": "(64, 96, 3), brighter half: bottom",
    "imageio": "(64, 96, 3), brighter half: bottom",
    "PyAV, rotation": -180,
}
if seen != expected:
    sys.exit(f"CHANGED: expected {expected}")
print("As described.")
END
