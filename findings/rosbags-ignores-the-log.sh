#!/bin/sh
# Guess: a bag in SQLite is what SQLite reads: messages in its write-ahead log count, as for a recorder that was killed.
# What happens: rosbags opens the file as one that never changes, so that SQLite does not look at the log beside it:
#   half of the messages are missing, without a word.
# Versions: rosbags 0.11.9, numpy 2.2.6
# Output on 29 November 2026:
#   sqlite3: 20 messages
#   rosbags: 10 messages
#   rosbags, after a checkpoint: 20 messages
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
import sqlite3
import sys

from rosbags.rosbag2 import Reader, Writer
from rosbags.typesys import Stores, get_typestore

store = get_typestore(Stores.ROS2_HUMBLE)
number = store.types["std_msgs/msg/Float64"]
with Writer("run", version=9) as writer:
    connection = writer.add_connection("/elbow", number.__msgtype__, typestore=store)
    for time in range(10):
        writer.write(connection, time, store.serialize_cdr(number(data=float(time)), number.__msgtype__))


def count_by_rosbags():
    with Reader("run") as reader:
        return len(list(reader.messages()))


database = sqlite3.connect("run/run.db3")
database.execute("PRAGMA journal_mode=WAL")
database.execute("INSERT INTO messages SELECT NULL, topic_id, timestamp + 10, data FROM messages")
database.commit()
seen = {"sqlite3": sqlite3.connect("run/run.db3").execute("SELECT count(*) FROM messages").fetchone()[0]}
seen["rosbags"] = count_by_rosbags()
database.execute("PRAGMA wal_checkpoint(TRUNCATE)")
seen["rosbags, after a checkpoint"] = count_by_rosbags()
for name, count in seen.items():
    print(f"{name}: {count} messages")

expected = {"sqlite3": 20, "rosbags": 10, "rosbags, after a checkpoint": 20}
if seen != expected:
    sys.exit(f"CHANGED: expected {expected}")
print("As described.")
END
