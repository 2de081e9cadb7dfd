#!/bin/sh
# Guess: CAP_PROP_POS_FRAMES n, then read(), gives frame n.
# What happens: not behind a gap in the video's times, as a camera that dropped frames leaves it: number 30 gives frame
#   32, number 59 gives frame 55. OpenCV turns the number into a time. read() in a row gives each frame.
# Versions: opencv-python-headless 4.13.0.92, av 19.0.2, numpy 2.2.6
# Output on 27 November 2026:
#   read() in a row gives each frame: True
#   frame 10 asked for, frame 10 given
#   frame 19 asked for, frame 19 given
#   frame 30 asked for, frame 32 given
#   frame 45 asked for, frame 47 given
#   frame 59 asked for, frame 55 given
set -eu
packages="opencv-python-headless==4.13.0.92 av==19.0.2 numpy==2.2.6"
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
import cv2
import numpy as np

BITS = 8


def picture(number):
    pixels = np.zeros((64, 96, 3), np.uint8)
    for bit in range(BITS):
        pixels[:, bit * 12 : (bit + 1) * 12] = 235 if number >> bit & 1 else 20
    return pixels


def shown(pixels):
    return sum(int(pixels[20:40, bit * 12 + 3 : bit * 12 + 9].mean() > 128) << bit for bit in range(BITS))


# 60 numbered frames at 30 fps; a third of a second is missing after the twentieth
times = [*range(20), *range(30, 70)]
with av.open("gap.mp4", "w") as container:
    stream = container.add_stream("libx264", rate=30, options={"g": "15", "crf": "10"})
    stream.width, stream.height, stream.pix_fmt = 96, 64, "yuv420p"
    stream.codec_context.time_base = Fraction(1, 30)
    for number, time in enumerate(times):
        frame = av.VideoFrame.from_ndarray(picture(number), format="rgb24")
        frame.pts = time
        frame.time_base = Fraction(1, 30)
        container.mux(stream.encode(frame))
    container.mux(stream.encode())

capture = cv2.VideoCapture("gap.mp4")
in_a_row = [shown(capture.read()[1]) for _ in range(60)]
seen = {"in a row": in_a_row == list(range(60))}
print(f"read() in a row gives each frame: {seen['in a row']}")
for number in (10, 19, 30, 45, 59):
    capture.set(cv2.CAP_PROP_POS_FRAMES, number)
    seen[number] = shown(capture.read()[1])
    print(f"frame {number} asked for, frame {seen[number]} given")

expected = {"in a row": True, 10: 10, 19: 19, 30: 32, 45: 47, 59: 55}
if seen != expected:
    sys.exit(f"CHANGED: expected {expected}")
print("As described.")
END
