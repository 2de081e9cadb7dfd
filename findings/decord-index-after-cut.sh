#!/bin/sh
# Guess: a frame number means one frame, in whatever order frames are read.
# What happens: in a video cut by copying packets (as ffmpeg -ss -c copy does), decord gives another frame for the same
#   number, by what was read before: 20 is the cut's frame 10 if read at once, 20 if read in a row. It counts 60 frames;
#   50 are there.
# Versions: decord 0.6.0, av 19.0.2, numpy 2.2.6
# Output on 27 November 2026:
#   PyAV: 50 frames; number 5 shows frame 15, number 20 shows frame 30 of the whole
#   decord, in a row: 60 frames; number 5 shows frame 15, number 20 shows frame 30 of the whole
#   decord, at once: 60 frames; number 5 shows frame 15, number 20 shows frame 20 of the whole
set -eu
packages="decord==0.6.0 av==19.0.2 numpy==2.2.6"
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
import decord
import numpy as np

BITS = 8


def picture(number):
    pixels = np.zeros((64, 96, 3), np.uint8)
    for bit in range(BITS):
        pixels[:, bit * 12 : (bit + 1) * 12] = 235 if number >> bit & 1 else 20
    return pixels


def shown(pixels):
    return sum(int(pixels[20:40, bit * 12 + 3 : bit * 12 + 9].mean() > 128) << bit for bit in range(BITS))


# 60 numbered frames at 30 fps, a keyframe each second
with av.open("whole.mp4", "w") as container:
    stream = container.add_stream("libx264", rate=30, options={"g": "30", "bf": "0", "crf": "10"})
    stream.width, stream.height, stream.pix_fmt = 96, 64, "yuv420p"
    for number in range(60):
        container.mux(stream.encode(av.VideoFrame.from_ndarray(picture(number), format="rgb24")))
    container.mux(stream.encode())

# The cut begins at frame 10: the packets from the keyframe before it stay, with times below zero
with av.open("whole.mp4") as whole, av.open("cut.mp4", "w") as cut:
    source = whole.streams.video[0]
    copy = cut.add_stream_from_template(source)
    offset = int(Fraction(10, 30) / source.time_base)
    for packet in whole.demux(source):
        if packet.dts is not None:
            packet.pts -= offset
            packet.dts -= offset
            packet.stream = copy
            cut.mux(packet)

with av.open("cut.mp4") as cut:
    pyav = [shown(frame.to_ndarray(format="rgb24")) for frame in cut.decode(video=0)]
reader = decord.VideoReader("cut.mp4")
in_a_row = [shown(reader[number].asnumpy()) for number in range(len(reader))]
at_once = [shown(decord.VideoReader("cut.mp4")[number].asnumpy()) for number in (5, 20)]
seen = {
    "PyAV": [len(pyav), pyav[5], pyav[20]],
    "decord, in a row": [len(in_a_row), in_a_row[5], in_a_row[20]],
    "decord, at once": [len(reader), *at_once],
}
for name, (count, fifth, twentieth) in seen.items():
    print(f"{name}: {count} frames; number 5 shows frame {fifth}, number 20 shows frame {twentieth} of the whole")

expected = {
    "PyAV": [50, 15, 30],
    "decord, in a row": [60, 15, 30],
    "decord, at once": [60, 15, 20],
}
if seen != expected:
    sys.exit(f"CHANGED: expected {expected}")
print("As described.")
END
