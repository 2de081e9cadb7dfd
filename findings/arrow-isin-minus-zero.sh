#!/bin/sh
# Guess: Of sparse rewards, -1 and 0, `isin([0, -1])` keeps all rows, and a join on the reward too, also where 0 is -0.0,
#   as by -(distance > limit) in NumPy, which is how Gymnasium's robots reward: the two zeros are equal.
# What happens: PyArrow's == finds the successes, its isin and its join lose all of them; and DuckDB loses them over an
#   Arrow table, to which it hands IN and what a join looks for, but not in a table of its own. Polars, NumPy: all.
# Versions: pyarrow 26.0.1, duckdb 1.5.5, polars 2.1.0, numpy 2.4.6
# Output on 1 December 2026:
#   rows: 1000, of them 100 successes
#   PyArrow: == 0: 100, isin [0, -1]: 900, join: 900
#   DuckDB, table of its own: = 0: 100, IN (0, -1): 1000, join: 1000
#   DuckDB, Arrow table: = 0: 100, IN (0, -1): 900, join: 900
#   Polars: == 0: 100, is_in: 1000, join: 1000
#   NumPy: == 0: 100, isin: 1000
set -eu
packages="pyarrow==26.0.1 duckdb==1.5.5 polars==2.1.0 numpy==2.4.6"
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
import polars as pl
import pyarrow as pa
import pyarrow.compute as pc

VALUES = [0.0, -1.0]
distance = np.arange(1000) % 10
reward = -(distance > 0).astype(np.float32)
frames = pa.table({"reward": reward})
names = pa.table({"reward": pa.array(VALUES, pa.float32()), "name": ["success", "not yet"]})

field = pc.field("reward")
by_arrow = [
    f"== 0: {frames.filter(field == 0).num_rows}",
    f"isin [0, -1]: {frames.filter(field.isin(VALUES)).num_rows}",
    f"join: {frames.join(names, 'reward', join_type='inner').num_rows}",
]
con = duckdb.connect()
con.register("arrow_frames", frames)
con.register("names", names)
con.execute("CREATE TABLE frames AS FROM arrow_frames")


def by_duckdb(source):
    clauses = {"= 0": "WHERE reward = 0", "IN (0, -1)": "WHERE reward IN (0, -1)"}
    clauses["join"] = "JOIN names USING (reward)"
    counts = {
        name: con.execute(f"SELECT count(*) FROM {source} {clause}").fetchall()[0][0]
        for name, clause in clauses.items()
    }
    return ", ".join(f"{name}: {count}" for name, count in counts.items())


polars = pl.from_arrow(frames)
by_polars = [
    f"== 0: {polars.filter(pl.col('reward') == 0).height}",
    f"is_in: {polars.filter(pl.col('reward').is_in(VALUES)).height}",
    f"join: {polars.join(pl.from_arrow(names), on='reward').height}",
]
seen = {
    "rows": f"{len(reward)}, of them {np.sum(distance == 0)} successes",
    "PyArrow": ", ".join(by_arrow),
    "DuckDB, table of its own": by_duckdb("frames"),
    "DuckDB, Arrow table": by_duckdb("arrow_frames"),
    "Polars": ", ".join(by_polars),
    "NumPy": f"== 0: {np.sum(reward == 0)}, isin: {np.isin(reward, VALUES).sum()}",
}
for name, value in seen.items():
    print(f"{name}: {value}")

expected = {
    "rows": "1000, of them 100 successes",
    "PyArrow": "== 0: 100, isin [0, -1]: 900, join: 900",
    "DuckDB, table of its own": "= 0: 100, IN (0, -1): 1000, join: 1000",
    "DuckDB, Arrow table": "= 0: 100, IN (0, -1): 900, join: 900",
    "Polars": "== 0: 100, is_in: 1000, join: 1000",
    "NumPy": "== 0: 100, isin: 1000",
}
if seen != expected:
    sys.exit(f"CHANGED: expected {expected}")
print("As described.")
END
