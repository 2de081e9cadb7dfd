#!/bin/sh
# Guess: messages of no topic are none: a recording without the topic asked for gives nothing.
# What happens: in rosbags an empty list of connections is no filter: asked for a gripper that was not recorded, it
#   gives all messages of all topics. In mcap an empty list of topics gives none.
# Versions: rosbags 0.11.9, mcap 1.6.0, mcap-ros2-support 0.6.0, numpy 2.2.6
# Output on 27 November 2026:
#   rosbags, /wrist: 5 messages of 10
#   rosbags, /gripper: 10 messages of 10
#   mcap, topics=['/wrist']: 5 messages of 10
#   mcap, topics=[]: 0 messages of 10
set -eu
packages="rosbags==0.11.9 mcap==1.6.0 mcap-ros2-support==0.6.0 numpy==2.2.6"
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

from mcap.reader import make_reader
from rosbags.rosbag2 import Reader, StoragePlugin, Writer
from rosbags.typesys import Stores, get_typestore

store = get_typestore(Stores.ROS2_HUMBLE)
number = store.types["std_msgs/msg/Float64"]
with Writer("run", version=9, storage_plugin=StoragePlugin.MCAP) as writer:
    for topic in ("/elbow", "/wrist"):
        connection = writer.add_connection(topic, number.__msgtype__, typestore=store)
        for time in range(5):
            writer.write(connection, time, store.serialize_cdr(number(data=float(time)), number.__msgtype__))

seen = {}
with Reader("run") as reader:
    for topic in ("/wrist", "/gripper"):
        connections = [connection for connection in reader.connections if connection.topic == topic]
        seen[f"rosbags, {topic}"] = len(list(reader.messages(connections=connections)))
for topics in (["/wrist"], []):
    with open(next(Path("run").glob("*.mcap")), "rb") as file:
        seen[f"mcap, topics={topics}"] = len(list(make_reader(file).iter_messages(topics=topics)))
for name, count in seen.items():
    print(f"{name}: {count} messages of 10")

expected = {"rosbags, /wrist": 5, "rosbags, /gripper": 10, "mcap, topics=['/wrist']": 5, "mcap, topics=[]": 0}
if seen != expected:
    sys.exit(f"CHANGED: expected {expected}")
print("As described.")
END
