#!/bin/sh
# Guess: imageio and MoviePy give a video's frames as they are, one after the other, and frame 20 is the twentieth.
# What happens: Where a camera paused for a second, imageio repeats the last frame until the video has one rate again:
#   90 pictures of 60 frames, while count_frames() says 60. get_data(20) gives frame 30 once it has to go back, as it
#   turns the number into a time by the mean rate. MoviePy gives 60 pictures of 30 frames.
# Versions: imageio 2.38.1, imageio-ffmpeg 0.8.1, moviepy 2.2.1, av 19.0.2, numpy 2.4.6
# Output on 28 November 2026:
#   PyAV: 60 pictures, 60 different; number 40 is frame 40
#   imageio, PyAV's plugin: 60 pictures, 60 different; number 40 is frame 40
#   imageio: 90 pictures, 60 different; number 40 is frame 29
#   MoviePy: 60 pictures, 30 different; number 40 is frame 29
#   imageio, count_frames(): 60
#   imageio, get_data(59), then get_data(20): [29, 30]
set -eu
packages="imageio==2.38.1 imageio-ffmpeg==0.8.1 moviepy==2.2.1 av==19.0.2 numpy==2.4.6"
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
import imageio
import imageio.v3
import moviepy
import numpy as np

TICK = Fraction(1, 30)
with av.open("camera.mp4", "w") as container:
    stream = container.add_stream("libx264", rate=30, options={"bf": "0"})
    stream.width, stream.height, stream.pix_fmt = 96, 64, "yuv420p"
    stream.codec_context.time_base = TICK
    for number in range(60):
        frame = av.VideoFrame.from_ndarray(np.full((64, 96, 3), 4 * number, np.uint8), format="rgb24")
        frame.pts = number if number < 30 else number + 30
        frame.time_base = TICK
        container.mux(stream.encode(frame))
    container.mux(stream.encode())


def numbers(pictures):
    return [round(float(np.asarray(picture).mean()) / 4) for picture in pictures]


with av.open("camera.mp4") as container:
    decoded = numbers(frame.to_ndarray(format="rgb24") for frame in container.decode(video=0))
reader = imageio.get_reader("camera.mp4", "ffmpeg")
clip = moviepy.VideoFileClip("camera.mp4")
readings = {
    "PyAV": decoded,
    "imageio, PyAV's plugin": numbers(imageio.v3.imiter("camera.mp4", plugin="pyav")),
    "imageio": numbers(imageio.v3.imiter("camera.mp4", plugin="FFMPEG")),
    "MoviePy": numbers(clip.iter_frames()),
}
seen = {name: [len(given), len(set(given)), given[40]] for name, given in readings.items()}
seen["imageio, count_frames()"] = reader.count_frames()
seen["imageio, get_data(59), then get_data(20)"] = numbers([reader.get_data(59), reader.get_data(20)])
for name, value in seen.items():
    words = "{} pictures, {} different; number 40 is frame {}"
    print(f"{name}: {words.format(*value) if name in readings else value}")

expected = {
    "PyAV": [60, 60, 40],
    "imageio, PyAV's plugin": [60, 60, 40],
    "imageio": [90, 60, 29],
    "MoviePy": [60, 30, 29],
    "imageio, count_frames()": 60,
    "imageio, get_data(59), then get_data(20)": [29, 30],
}
if seen != expected:
    sys.exit(f"CHANGED: expected {expected}")
print("As described.")
END
