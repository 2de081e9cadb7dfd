#!/bin/sh
# Guess: 300 log times (unsigned, as in MCAP) and 300 stamps (signed), in nanoseconds, put in one array, are still
#   there.
# What happens: NumPy and pandas make float64 of uint64 and int64: all are rounded to 256 ns, so that one in 256 is
#   found again, and a delay of 100 ns is 0. Polars and DuckDB make 128-bit integers of them and lose nothing. Nothing
#   warns of it.
# Versions: numpy 2.4.6, pandas 3.1.1, polars 2.1.0, duckdb 1.5.5, pyarrow 26.0.1
# Output on 29 November 2026:
#   NumPy: 3 of 600 times are found again, the first delay is 0 ns
#   pandas: 3 of 600 times are found again, the first delay is 0 ns
#   Polars: 600 of 600 times are found again, the first delay is 100 ns
#   DuckDB: 600 of 600 times are found again, the first delay is 100 ns
set -eu
packages="numpy==2.4.6 pandas==3.1.1 polars==2.1.0 duckdb==1.5.5 pyarrow==26.0.1"
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
import pandas as pd
import polars as pl

stamps = 1_767_225_600_000_000_001 + 33_333_333 * np.arange(300, dtype=np.int64)
logged = (stamps + 100).astype(np.uint64)
true = {int(time) for time in (*stamps, *logged)}
in_pandas = pd.concat([pd.Series(stamps), pd.Series(logged)])
frames = [pl.DataFrame({"time": stamps}), pl.DataFrame({"time": logged})]
in_polars = pl.concat(frames, how="vertical_relaxed")["time"]
stamp_table, logged_table = (frame.to_arrow() for frame in frames)
in_duckdb = duckdb.sql("SELECT time FROM stamp_table UNION ALL SELECT time FROM logged_table")
row = duckdb.sql("SELECT a.time - b.time FROM logged_table a POSITIONAL JOIN stamp_table b").fetchone()
times = {
    "NumPy": (np.concatenate([stamps, logged]), (logged - stamps)[0]),
    "pandas": (in_pandas, (pd.Series(logged) - pd.Series(stamps))[0]),
    "Polars": (in_polars, (frames[1] - frames[0])["time"][0]),
    "DuckDB": ([row[0] for row in in_duckdb.fetchall()], row[0]),
}
seen = {}
for name, (together, delay) in times.items():
    seen[name] = [len({int(time) for time in together} & true), int(delay)]
    print(f"{name}: {seen[name][0]} of {len(true)} times are found again, the first delay is {seen[name][1]} ns")

expected = {
    "NumPy": [3, 0],
    "pandas": [3, 0],
    "Polars": [600, 100],
    "DuckDB": [600, 100],
}
if seen != expected:
    sys.exit(f"CHANGED: expected {expected}")
print("As described.")
END
