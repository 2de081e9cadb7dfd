#!/bin/sh
# Guess: ASOF JOIN of times i / 30 with a LeRobot dataset's timestamps finds frame i.
# What happens: LeRobot stores timestamps as float32, and a float32 compared with a double is widened: 427 of 900
#   labels land one frame early, without a message. A plain join finds 60 of 900. In PyArrow, timestamp == 0.1 finds
#   none; DuckDB finds one.
# Versions: duckdb 1.5.5, pyarrow 26.0.1, numpy 2.2.6
# Output on 27 November 2026:
#   labels on another frame by ASOF JOIN: 427
#   frames they are off: -1
#   labels that a plain join finds: 60
#   ASOF JOIN, both float32: 0
#   DuckDB, timestamp = 0.1: 1
#   PyArrow, timestamp == 0.1: 0
set -eu
packages="duckdb==1.5.5 pyarrow==26.0.1 numpy==2.2.6"
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

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

numbers = np.arange(900)
frames = pa.table({"frame_index": numbers, "timestamp": (numbers / 30).astype(np.float32)})
labels = pa.table({"label": numbers, "seconds": numbers / 30})


def one(sql):
    return duckdb.sql(sql).fetchone()


early, least = one(
    "SELECT count(*) FILTER (frame_index <> label), min(frame_index - label) "
    "FROM labels ASOF JOIN frames ON labels.seconds >= frames.timestamp"
)
seen = {
    "labels on another frame by ASOF JOIN": early,
    "frames they are off": least,
    "labels that a plain join finds": one("SELECT count(*) FROM labels JOIN frames ON seconds = timestamp")[0],
    "ASOF JOIN, both float32": one(
        "SELECT count(*) FILTER (frame_index <> label) "
        "FROM labels ASOF JOIN frames ON labels.seconds::FLOAT >= frames.timestamp"
    )[0],
    "DuckDB, timestamp = 0.1": one("SELECT count(*) FROM frames WHERE timestamp = 0.1")[0],
    "PyArrow, timestamp == 0.1": frames.filter(pc.field("timestamp") == 0.1).num_rows,
}
for name, value in seen.items():
    print(f"{name}: {value}")

expected = {
    "labels on another frame by ASOF JOIN": 427,
    "frames they are off": -1,
    "labels that a plain join finds": 60,
    "ASOF JOIN, both float32": 0,
    "DuckDB, timestamp = 0.1": 1,
    "PyArrow, timestamp == 0.1": 0,
}
if seen != expected:
    sys.exit(f"CHANGED: expected {expected}")
print("As described.")
END
