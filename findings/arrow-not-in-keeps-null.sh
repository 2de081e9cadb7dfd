#!/bin/sh
# Guess: Two filters of Parquet that say the same, != "failed" and not in ["failed"], give the same episodes.
# What happens: != leaves out an episode without an outcome, as SQL does, and "not in" keeps it. With None in the list
#   it is left out, and the others stay, where SQL finds no row at all. In DuckDB and in Polars the two agree.
# Versions: pyarrow 26.0.1, duckdb 2.0.1, polars 2.1.0
# Output on 28 November 2026:
#   PyArrow, !=: [0]
#   PyArrow, not in: [0, 2]
#   PyArrow, not in, with None: [0]
#   DuckDB, <>: [0]
#   DuckDB, NOT IN: [0]
#   DuckDB, NOT IN, with NULL: []
#   Polars, !=: [0]
#   Polars, not is_in: [0]
set -eu
packages="pyarrow==26.0.1 duckdb==2.0.1 polars==2.1.0"
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
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

pq.write_table(pa.table({"episode": [0, 1, 2], "outcome": ["done", "failed", None]}), "episodes.parquet")


def arrow(operator, values):
    return pq.read_table("episodes.parquet", filters=[("outcome", operator, values)])["episode"].to_pylist()


def sql(condition):
    rows = duckdb.sql(f"SELECT episode FROM 'episodes.parquet' WHERE outcome {condition} ORDER BY episode").fetchall()
    return [episode for (episode,) in rows]


def polars(condition):
    return pl.scan_parquet("episodes.parquet").filter(condition).collect()["episode"].to_list()


seen = {
    "PyArrow, !=": arrow("!=", "failed"),
    "PyArrow, not in": arrow("not in", ["failed"]),
    "PyArrow, not in, with None": arrow("not in", ["failed", None]),
    "DuckDB, <>": sql("<> 'failed'"),
    "DuckDB, NOT IN": sql("NOT IN ('failed')"),
    "DuckDB, NOT IN, with NULL": sql("NOT IN ('failed', NULL)"),
    "Polars, !=": polars(pl.col("outcome") != "failed"),
    "Polars, not is_in": polars(~pl.col("outcome").is_in(["failed"])),
}
for name, value in seen.items():
    print(f"{name}: {value}")

expected = {
    "PyArrow, !=": [0],
    "PyArrow, not in": [0, 2],
    "PyArrow, not in, with None": [0],
    "DuckDB, <>": [0],
    "DuckDB, NOT IN": [0],
    "DuckDB, NOT IN, with NULL": [],
    "Polars, !=": [0],
    "Polars, not is_in": [0],
}
if seen != expected:
    sys.exit(f"CHANGED: expected {expected}")
print("As described.")
END
