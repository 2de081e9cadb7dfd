#!/bin/sh
# Guess: `to_pyarrow_table(filters=...)` of a Delta table finds the rows that the same comparison finds in memory, and
#   so does `to_pyarrow_dataset()`.
# What happens: Of a file with one infinite number in that column it finds none: its statistics have no number for
#   infinity but null, and the dataset promises PyArrow that the file's numbers are at most null. All frames of the
#   episode are gone, by `<` and by `>`, without a warning; DuckDB over that dataset loses them, too. Without a filter,
#   with a filter of another column and by `QueryBuilder` they are there. NaN hides nothing; where all other numbers
#   of its file fit, it is found with them.
# Versions: deltalake 1.6.6, pyarrow 26.0.1, duckdb 1.5.5
# Output on 1 December 2026:
#   distances below 0.5 m, in memory: [0.2, 0.3, 0.2, 0.3]
#   to_pyarrow_table(filters): [0.2, 0.3]
#   to_pyarrow_dataset(): [0.2, 0.3]
#   DuckDB over it: [0.2, 0.3]
#   QueryBuilder: [0.2, 0.3, 0.2, 0.3]
#   above 0.5 m, in memory: [0.9, inf]
#   above 0.5 m, to_pyarrow_table(filters): []
#   filter of another column: [0.2, inf, 0.3]
#   NaN instead of infinity, frames below 0.5 m: 5
#   warnings: []
set -eu
packages="deltalake==1.6.6 pyarrow==26.0.1 duckdb==1.5.5"
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
import warnings

import duckdb
import pyarrow as pa
import pyarrow.dataset as ds
from deltalake import DeltaTable, QueryBuilder, write_deltalake

said = []
warnings.showwarning = lambda *args, **_: said.append(str(args[0]))


def episode(number, distances):
    return pa.table({"episode_index": [number] * len(distances), "distance": pa.array(distances, pa.float64())})


def distances(table):
    return pa.table(table)["distance"].to_pylist()


def table(path, nothing_in_sight):
    """Two episodes, a file each; the second one has a frame in which the range finder sees nothing."""
    episodes = [episode(0, [0.2, 0.3]), episode(1, [0.2, nothing_in_sight, 0.3])]
    for rows in episodes:
        write_deltalake(path, rows, mode="append")
    return DeltaTable(path), pa.concat_tables(episodes)


NEAR = ds.field("distance") < 0.5
delta, rows = table("ranges", float("inf"))
write_deltalake("far", episode(0, [0.3, 0.9, float("inf")]))
far = DeltaTable("far")
frames = delta.to_pyarrow_dataset()
with_nan, _ = table("with_nan", float("nan"))
QUERY = "SELECT * FROM delta WHERE distance < 0.5 ORDER BY episode_index, distance"
sql = QueryBuilder().register("delta", delta).execute(QUERY)
seen = {
    "distances below 0.5 m, in memory": distances(rows.filter(NEAR)),
    "to_pyarrow_table(filters)": distances(delta.to_pyarrow_table(filters=[("distance", "<", 0.5)])),
    "to_pyarrow_dataset()": distances(frames.to_table(filter=NEAR)),
    "DuckDB over it": distances(duckdb.sql("SELECT * FROM frames WHERE distance < 0.5").to_arrow_table()),
    "QueryBuilder": distances(sql),
    "above 0.5 m, in memory": distances(far.to_pyarrow_table().filter(ds.field("distance") > 0.5)),
    "above 0.5 m, to_pyarrow_table(filters)": distances(far.to_pyarrow_table(filters=[("distance", ">", 0.5)])),
    "filter of another column": distances(delta.to_pyarrow_table(filters=[("episode_index", "=", 1)])),
    "NaN instead of infinity, frames below 0.5 m": len(with_nan.to_pyarrow_table(filters=[("distance", "<", 0.5)])),
}
expected = {
    "distances below 0.5 m, in memory": [0.2, 0.3, 0.2, 0.3],
    "to_pyarrow_table(filters)": [0.2, 0.3],
    "to_pyarrow_dataset()": [0.2, 0.3],
    "DuckDB over it": [0.2, 0.3],
    "QueryBuilder": [0.2, 0.3, 0.2, 0.3],
    "above 0.5 m, in memory": [0.9, float("inf")],
    "above 0.5 m, to_pyarrow_table(filters)": [],
    "filter of another column": [0.2, float("inf"), 0.3],
    "NaN instead of infinity, frames below 0.5 m": 5,
}
for name, value in seen.items():
    print(f"{name}: {value}")
print(f"warnings: {said}")
if seen != expected or said:
    sys.exit(f"CHANGED: expected {expected}")
print("As described.")
END
