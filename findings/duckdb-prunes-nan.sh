#!/bin/sh
# Guess: frames without progress (NaN) pass progress > 0.5 everywhere or nowhere in DuckDB, where NaN is the largest
#   number.
# What happens: in a Parquet file of PyArrow, count(*) FILTER (progress > 0.5) counts them and WHERE progress > 0.5
#   does not, unless a real value of the same row group is above 0.5: its statistics leave NaN out, and the group is
#   skipped.
# Versions: duckdb 1.5.5, pyarrow 26.0.1
# Output on 27 November 2026:
#   early.parquet: WHERE progress > 0.5: 0, FILTER: 2; WHERE progress = 'nan': 0
#   whole.parquet: WHERE progress > 0.5: 3, FILTER: 3; WHERE progress = 'nan': 0
set -eu
packages="duckdb==1.5.5 pyarrow==26.0.1"
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
import pyarrow as pa
import pyarrow.parquet as pq

nan = float("nan")
pq.write_table(pa.table({"progress": [0.1, 0.2, nan, nan]}), "early.parquet")
pq.write_table(pa.table({"progress": [0.1, 0.9, nan, nan]}), "whole.parquet")
seen = {}
for file in ("early.parquet", "whole.parquet"):
    above = duckdb.sql(f"SELECT count(*) FROM '{file}' WHERE progress > 0.5").fetchone()[0]
    counted = duckdb.sql(f"SELECT count(*) FILTER (progress > 0.5) FROM '{file}'").fetchone()[0]
    equal = duckdb.sql(f"SELECT count(*) FROM '{file}' WHERE progress = 'nan'").fetchone()[0]
    seen[file] = [above, counted, equal]
    print(f"{file}: WHERE progress > 0.5: {above}, FILTER: {counted}; WHERE progress = 'nan': {equal}")

expected = {
    "early.parquet": [0, 2, 0],
    "whole.parquet": [3, 3, 0],
}
if seen != expected:
    sys.exit(f"CHANGED: expected {expected}")
print("As described.")
END
