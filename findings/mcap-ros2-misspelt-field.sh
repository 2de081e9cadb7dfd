#!/bin/sh
# Guess: the ROS 2 writer of mcap refuses a message with a field that its definition lacks, or without one that it has.
# What happens: `mcap_ros2.writer` leaves out a misspelt field and writes an empty list or 0 for what is missing, so a
#   recording with `positions` for `position`, or `nsec` for `nanosec`, has no positions, and stamps of whole seconds.
#   A bool of "false" is true. Nothing warns of it.
# Versions: mcap 1.6.0, mcap-ros2-support 0.6.0
# Output on 29 November 2026:
#   as defined: nanosec 7, position [1.5], effort 2.0, success True
#   positions: nanosec 7, position [], effort 2.0, success True
#   nsec: nanosec 0, position [1.5], effort 2.0, success True
#   no effort: nanosec 7, position [1.5], effort 0.0, success True
#   success as text: nanosec 7, position [1.5], effort 2.0, success True
set -eu
packages="mcap==1.6.0 mcap-ros2-support==0.6.0"
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
import io
import sys

from mcap.reader import make_reader
from mcap_ros2.decoder import DecoderFactory
from mcap_ros2.writer import Writer

DEFINITION = """builtin_interfaces/Time stamp
float64[] position
float64 effort
bool success
================================================================================
MSG: builtin_interfaces/Time
int32 sec
uint32 nanosec
"""
STAMP = {"sec": 5, "nanosec": 7}
messages = {
    "as defined": {"stamp": STAMP, "position": [1.5], "effort": 2.0, "success": True},
    "positions": {"stamp": STAMP, "positions": [1.5], "effort": 2.0, "success": True},
    "nsec": {"stamp": {"sec": 5, "nsec": 7}, "position": [1.5], "effort": 2.0, "success": True},
    "no effort": {"stamp": STAMP, "position": [1.5], "success": True},
    "success as text": {"stamp": STAMP, "position": [1.5], "effort": 2.0, "success": "false"},
}
stream = io.BytesIO()
writer = Writer(stream)
schema = writer.register_msgdef("lab_msgs/msg/Joints", DEFINITION)
for time, message in enumerate(messages.values()):
    writer.write_message("/joints", schema, message, log_time=time, publish_time=time)
writer.finish()
stream.seek(0)

seen = {}
decoded = make_reader(stream, decoder_factories=[DecoderFactory()]).iter_decoded_messages()
for name, (_, _, _, read) in zip(messages, decoded, strict=True):
    seen[name] = [read.stamp.nanosec, list(read.position), read.effort, read.success]
    print(f"{name}: nanosec {seen[name][0]}, position {seen[name][1]}, effort {seen[name][2]}, success {seen[name][3]}")

expected = {
    "as defined": [7, [1.5], 2.0, True],
    "positions": [7, [], 2.0, True],
    "nsec": [0, [1.5], 2.0, True],
    "no effort": [7, [1.5], 0.0, True],
    "success as text": [7, [1.5], 2.0, True],
}
if seen != expected:
    sys.exit(f"CHANGED: expected {expected}")
print("As described.")
END
