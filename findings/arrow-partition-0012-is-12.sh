#!/bin/sh
# Guess: texts by which a dataset is partitioned come back as texts.
# What happens: PyArrow reads numbers from the folders' names: episodes `0012` and `12` are both 12, `007` is 7, and a
#   filter for `0012` raises. A name that is no number among them, and all are texts. DuckDB reads texts.
# Versions: pyarrow 26.0.1, duckdb 1.5.5
# Output on 29 November 2026:
#   all digits: PyArrow [12, 12, 7], DuckDB ['0012', '12', '007']
#   one is not: PyArrow ['0012', '12', 'take7'], DuckDB ['0012', '12', 'take7']
set -eu
packages="pyarrow==26.0.1 duckdb==1.5.5"
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

seen = {}
for name, third in (("all digits", "007"), ("one is not", "take7")):
    table = pa.table({"episode": ["0012", "12", third], "progress": [0.1, 0.2, 0.3]})
    pq.write_to_dataset(table, name, partition_cols=["episode"])
    read = pq.read_table(name).sort_by("progress")["episode"].to_pylist()
    by_duckdb = duckdb.sql(f"SELECT episode FROM read_parquet('{name}/*/*.parquet') ORDER BY progress").fetchall()
    seen[name] = [read, [row[0] for row in by_duckdb]]
    print(f"{name}: PyArrow {seen[name][0]}, DuckDB {seen[name][1]}")

expected = {
    "all digits": [[12, 12, 7], ["0012", "12", "007"]],
    "one is not": [["0012", "12", "take7"], ["0012", "12", "take7"]],
}
if seen != expected:
    sys.exit(f"CHANGED: expected {expected}")
print("As described.")
END
