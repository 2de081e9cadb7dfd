#!/bin/sh
# Guess: a bag is read by any path that the folder may have: take#2 as take 2.
# What happens: rosbags gives SQLite the path as an address, in which `#` begins what is no part of it. Beside take#2 it
#   opens the file `take`, where one is: the other bag's messages, under the name of the bag that was asked for.
# Versions: rosbags 0.11.9, numpy 2.2.6
# Output on 29 November 2026:
#   asked for take 2: values [2.0, 2.0, 2.0]
#   asked for take#2.db3: values [1.0, 1.0, 1.0]
set -eu
packages="rosbags==0.11.9 numpy==2.2.6"
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
from pathlib import Path

from rosbags.rosbag2 import Reader, Writer
from rosbags.typesys import Stores, get_typestore

store = get_typestore(Stores.ROS2_HUMBLE)
number = store.types["std_msgs/msg/Float64"]
for take in (1, 2):
    with Writer(f"bag{take}", version=9) as writer:
        connection = writer.add_connection("/elbow", number.__msgtype__, typestore=store)
        message = store.serialize_cdr(number(data=float(take)), number.__msgtype__)
        for time in range(3):
            writer.write(connection, time, message)
Path("bag1/bag1.db3").rename("take")
Path("take 2.db3").write_bytes(Path("bag2/bag2.db3").read_bytes())
Path("bag2/bag2.db3").rename("take#2.db3")

seen = {}
for path, name in (("take 2.db3", "take 2"), ("take#2.db3", "take#2.db3")):
    with Reader(path) as reader:
        messages = [store.deserialize_cdr(data, c.msgtype) for c, _, data in reader.messages()]
    seen[name] = [message.data for message in messages]
    print(f"asked for {name}: values {seen[name]}")

expected = {"take 2": [2.0] * 3, "take#2.db3": [1.0] * 3}
if seen != expected:
    sys.exit(f"CHANGED: expected {expected}")
print("As described.")
END
