#!/bin/sh
# Guess: One VideoReformatter for all frames saves its set-up for each, and gives what a new one gives: colour space
#   and range are arguments of each call, and without them the defaults hold.
# What happens: It keeps what a call asked for. After a frame of BT.709 in full range a plain call still reads the next
#   one so; and the same explicit arguments give other pixels than a new one, since the range of the result stays, too.
#   VideoFrame.reformat keeps one inside each frame, so a frame that is asked twice does it as well. In av 19.0.2 equal
#   arguments give equal pixels; LeRobot 0.6.1 asks for av below 16.
# Versions: av 15.1.0, numpy 2.2.6
# Output on 30 November 2026:
#   a new one, plain: [223, 64, 32]
#   after BT.709 in full range, plain: [223, 83, 39]
#   a new one, BT.601: [223, 64, 32]
#   after BT.709 in full range, BT.601: [238, 78, 28]
#   the frame asked twice, BT.601: [238, 78, 28]
set -eu
packages="av==15.1.0 numpy==2.2.6"
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

import av
import numpy as np
from av.video.reformatter import ColorRange, Colorspace, VideoReformatter

FULL = {"src_colorspace": Colorspace.ITU709, "src_color_range": ColorRange.JPEG}
USUAL = {"src_colorspace": Colorspace.ITU601, "src_color_range": ColorRange.MPEG}
luma = np.full((64, 64), 110, np.uint8)
chroma = np.repeat(np.array([90, 200], np.uint8), 32 * 32).reshape(32, 64)


def frame():
    return av.VideoFrame.from_ndarray(np.concatenate([luma, chroma]), format="yuv420p")


def pixel(picture):
    return picture.to_ndarray()[0, 0].tolist()


def by(reformatter, **colours):
    return pixel(reformatter.reformat(frame(), format="rgb24", **colours))


seen = {"a new one, plain": by(VideoReformatter())}
used = VideoReformatter()
by(used, **FULL)
seen["after BT.709 in full range, plain"] = by(used)
seen["a new one, BT.601"] = by(VideoReformatter(), **USUAL)
used = VideoReformatter()
by(used, **FULL)
seen["after BT.709 in full range, BT.601"] = by(used, **USUAL)
asked_twice = frame()
asked_twice.reformat(format="rgb24", **FULL)
seen["the frame asked twice, BT.601"] = pixel(asked_twice.reformat(format="rgb24", **USUAL))
for name, value in seen.items():
    print(f"{name}: {value}")

expected = {
    "a new one, plain": [223, 64, 32],
    "after BT.709 in full range, plain": [223, 83, 39],
    "a new one, BT.601": [223, 64, 32],
    "after BT.709 in full range, BT.601": [238, 78, 28],
    "the frame asked twice, BT.601": [238, 78, 28],
}
if seen != expected:
    sys.exit(f"CHANGED: expected {expected}")
print("As described.")
END
