#!/bin/sh
# Guess: Parquet files of one dataset, in one of which progress happens to be 0 and 1 as whole numbers, are read
#   together with their numbers as they are, or not at all.
# What happens: DuckDB takes each column's type from the first file and rounds the others to it: 0.25 and 0.5 are 0,
#   0.75 is 1, and conditions see the rounded numbers. In the other order, with union_by_name and as JSON lines nothing
#   is lost; PyArrow and Polars raise. Nothing warns of it.
# Versions: duckdb 2.0.1, pyarrow 26.0.1, polars 2.1.0
# Output on 28 November 2026:
#   DuckDB: [0, 1, 0, 0, 1]
#   DuckDB, mean: 0.4
#   DuckDB, below 0.1: 3
#   DuckDB, other order: [0.25, 0.5, 0.75, 0.0, 1.0]
#   DuckDB, union_by_name: [0.0, 1.0, 0.25, 0.5, 0.75]
#   DuckDB, JSON lines: [0.0, 1.0, 0.25, 0.5, 0.75]
#   PyArrow: ArrowInvalid
#   Polars: SchemaError
set -eu
packages="duckdb==2.0.1 pyarrow==26.0.1 polars==2.1.0"
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
import json
import sys
from pathlib import Path

import duckdb
import polars
import pyarrow as pa
import pyarrow.parquet as pq

PARTS = {"part_0": [0, 1], "part_1": [0.25, 0.5, 0.75]}
for part, progress in PARTS.items():
    pq.write_table(pa.table({"progress": progress}), f"{part}.parquet")
    Path(f"{part}.jsonl").write_text("".join(json.dumps({"progress": value}) + "\n" for value in progress))


def values(source):
    return [value for (value,) in duckdb.sql(f"SELECT progress FROM {source}").fetchall()]


def outcome(read):
    try:
        return read()
    except Exception as error:
        return type(error).__name__


parts = "'part_*.parquet'"
seen = {
    "DuckDB": values(parts),
    "DuckDB, mean": duckdb.sql(f"SELECT avg(progress) FROM {parts}").fetchall()[0][0],
    "DuckDB, below 0.1": duckdb.sql(f"SELECT count(*) FROM {parts} WHERE progress < 0.1").fetchall()[0][0],
    "DuckDB, other order": values("read_parquet(['part_1.parquet', 'part_0.parquet'])"),
    "DuckDB, union_by_name": values(f"read_parquet({parts}, union_by_name = true)"),
    "DuckDB, JSON lines": values("'part_*.jsonl'"),
    "PyArrow": outcome(lambda: pq.read_table(["part_0.parquet", "part_1.parquet"])["progress"].to_pylist()),
    "Polars": outcome(lambda: polars.read_parquet("part_*.parquet")["progress"].to_list()),
}
for name, value in seen.items():
    print(f"{name}: {value}")

expected = {
    "DuckDB": [0, 1, 0, 0, 1],
    "DuckDB, mean": 0.4,
    "DuckDB, below 0.1": 3,
    "DuckDB, other order": [0.25, 0.5, 0.75, 0.0, 1.0],
    "DuckDB, union_by_name": [0.0, 1.0, 0.25, 0.5, 0.75],
    "DuckDB, JSON lines": [0.0, 1.0, 0.25, 0.5, 0.75],
    "PyArrow": "ArrowInvalid",
    "Polars": "SchemaError",
}
if seen != expected:
    sys.exit(f"CHANGED: expected {expected}")
print("As described.")
END
