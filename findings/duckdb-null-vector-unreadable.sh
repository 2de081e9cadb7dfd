#!/bin/sh
# Guess: a Parquet file that DuckDB writes, and reads, can be read by PyArrow.
# What happens: not where a vector of fixed length (FLOAT[3]; a robot's state may be FLOAT[7]) is NULL in one row:
#   PyArrow raises ArrowInvalid for the whole file. As a list (FLOAT[]) the same rows are read.
# Versions: duckdb 1.5.5, pyarrow 26.0.1
# Output on 27 November 2026:
#   FLOAT[3]: DuckDB reads 4 rows, 3 states; PyArrow: Length spanned by list offsets
#   FLOAT[]: DuckDB reads 4 rows, 3 states; PyArrow: 4
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

rows = "(SELECT i AS frame_index, CASE WHEN i <> 1 THEN [i, i, i] END AS state FROM range(4) r(i))"
seen = {}
for kind in ("FLOAT[3]", "FLOAT[]"):
    duckdb.sql(f"COPY (SELECT frame_index, state::{kind} AS state FROM {rows}) TO 'state.parquet'")
    by_duckdb = duckdb.sql("SELECT count(*), count(state) FROM 'state.parquet'").fetchone()
    try:
        by_pyarrow = pq.read_table("state.parquet").num_rows
    except pa.ArrowInvalid as error:
        by_pyarrow = str(error).split("(")[0].strip()
    seen[kind] = [by_duckdb, by_pyarrow]
    print(f"{kind}: DuckDB reads {by_duckdb[0]} rows, {by_duckdb[1]} states; PyArrow: {by_pyarrow}")

expected = {
    "FLOAT[3]": [(4, 3), "Length spanned by list offsets"],
    "FLOAT[]": [(4, 3), 4],
}
if seen != expected:
    sys.exit(f"CHANGED: expected {expected}")
print("As described.")
END
