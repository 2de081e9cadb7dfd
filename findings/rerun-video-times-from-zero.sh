#!/bin/sh
# Guess: Rerun's AssetVideo.read_frame_timestamps_nanos() gives a video's frames the times that other readers give
#   them.
# What happens: it counts from the first packet. A video that begins at 0.5 s begins at 0 with Rerun; of a video cut by
#   copying packets it lists 60 times, where the file says that 50 are to be shown: what stands at 0 s there is frame 0,
#   not frame 10.
# Versions: rerun-sdk 0.41.0, av 19.0.2, numpy 2.2.6
# Output on 27 November 2026:
#   whole.mp4, PyAV: 60 frames, the first at 0.0 s
#   whole.mp4, Rerun: 60 frames, the first at 0.0 s
#   late.mp4, PyAV: 60 frames, the first at 0.5 s
#   late.mp4, Rerun: 60 frames, the first at 0.0 s
#   cut.mp4, PyAV: 50 frames, the first at 0.0 s
#   cut.mp4, Rerun: 60 frames, the first at 0.0 s
set -eu
packages="rerun-sdk==0.41.0 av==19.0.2 numpy==2.2.6"
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
import rerun as rr


def encode(path, first):
    """60 frames at 30 fps, the first at `first` / 30 seconds."""
    with av.open(path, "w") as container:
        stream = container.add_stream("libx264", rate=30, options={"g": "30", "bf": "0"})
        stream.width, stream.height, stream.pix_fmt = 96, 64, "yuv420p"
        stream.codec_context.time_base = Fraction(1, 30)
        for number in range(60):
            frame = av.VideoFrame.from_ndarray(np.full((64, 96, 3), number, np.uint8), format="rgb24")
            frame.pts = first + number
            frame.time_base = Fraction(1, 30)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())


def cut(path, new, frames):
    """As a copy of packets: those from the keyframe before the cut stay, with times below zero."""
    with av.open(path) as whole, av.open(new, "w") as container:
        source = whole.streams.video[0]
        copy = container.add_stream_from_template(source)
        offset = int(Fraction(frames, 30) / source.time_base)
        for packet in whole.demux(source):
            if packet.dts is not None:
                packet.pts -= offset
                packet.dts -= offset
                packet.stream = copy
                container.mux(packet)


encode("late.mp4", first=15)
encode("whole.mp4", first=0)
cut("whole.mp4", "cut.mp4", frames=10)
seen = {}
for file in ("whole.mp4", "late.mp4", "cut.mp4"):
    with av.open(file) as container:
        times = [float(frame.time) for frame in container.decode(video=0)]
    nanoseconds = rr.AssetVideo(path=file).read_frame_timestamps_nanos()
    seen[file] = {"PyAV": [len(times), times[0]], "Rerun": [len(nanoseconds), nanoseconds[0] / 1e9]}
    for reader, (count, first) in seen[file].items():
        print(f"{file}, {reader}: {count} frames, the first at {first:.1f} s")

expected = {
    "whole.mp4": {"PyAV": [60, 0.0], "Rerun": [60, 0.0]},
    "late.mp4": {"PyAV": [60, 0.5], "Rerun": [60, 0.0]},
    "cut.mp4": {"PyAV": [50, 0.0], "Rerun": [60, 0.0]},
}
if seen != expected:
    sys.exit(f"CHANGED: expected {expected}")
print("As described.")
END
