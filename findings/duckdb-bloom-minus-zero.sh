#!/bin/sh
# Guess: A success of a sparse reward, 0, is found by WHERE reward = 0 in whatever DuckDB has stored, also where it is
#   -0.0, as by -(distance > limit) in NumPy, which is how Gymnasium's robots reward: the two zeros are equal.
# What happens: In its own tables it is; in a Parquet file that DuckDB itself has written none of them is found. The file
#   has a Bloom filter over the bits of its values, in which 0.0 and -0.0 are two: the file is passed over. >= 0 finds
#   them all, as does = 0 once the file is written without the filter.
# Versions: duckdb 1.5.5, numpy 2.4.6, pyarrow 26.0.1
# Output on 1 December 2026:
#   table: = 0: 100, IN (0): 100, >= 0: 100
#   Parquet of DuckDB: = 0: 0, IN (0): 0, >= 0: 100
#   Parquet of DuckDB, no Bloom filter: = 0: 100, IN (0): 100, >= 0: 100
#   Parquet of PyArrow: = 0: 100, IN (0): 100, >= 0: 100
set -eu
packages="duckdb==1.5.5 numpy==2.4.6 pyarrow==26.0.1"
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
import pyarrow.parquet as pq

distance = np.arange(1000) % 10
frames = pa.table({"reward": -(distance > 0).astype(np.float32)})
pq.write_table(frames, "arrow.parquet")
con = duckdb.connect()
con.register("arrow_frames", frames)
con.execute("CREATE TABLE frames AS FROM arrow_frames")
con.execute("COPY frames TO 'own.parquet'")
con.execute("COPY frames TO 'plain.parquet' (WRITE_BLOOM_FILTER false)")

SOURCES = {
    "table": "frames",
    "Parquet of DuckDB": "'own.parquet'",
    "Parquet of DuckDB, no Bloom filter": "'plain.parquet'",
    "Parquet of PyArrow": "'arrow.parquet'",
}
seen = {}
for name, source in SOURCES.items():
    counts = []
    for condition in ("= 0", "IN (0)", ">= 0"):
        [(count,)] = con.execute(
            f"SELECT count(*) FROM {source} WHERE reward {condition}"
        ).fetchall()
        counts.append(f"{condition}: {count}")
    seen[name] = ", ".join(counts)
for name, value in seen.items():
    print(f"{name}: {value}")

all_found = "= 0: 100, IN (0): 100, >= 0: 100"
expected = dict.fromkeys(SOURCES, all_found) | {"Parquet of DuckDB": "= 0: 0, IN (0): 0, >= 0: 100"}
if seen != expected:
    sys.exit(f"CHANGED: expected {expected}")
print("As described.")
END
