#!/bin/sh
# Guess: a number that DuckLake stored is the same before and after its inlined rows are flushed to Parquet.
# What happens: sum() of whole numbers is a HUGEINT, which is exact while the catalog holds it, and rounded to a double
#   in Parquet: 9,007,199,254,740,993 is ...992 after ducklake_flush_inlined_data, still called HUGEINT. A check or a
#   digest of it changes by upkeep alone. Nothing warns of it.
# Versions: duckdb 1.5.5, duckdb-extension-ducklake 1.5.5
# Output on 29 November 2026:
#   inlined: HUGEINT 9007199254740993 (HUGEINT), BIGINT 9007199254740993, equal: True
#   flushed: HUGEINT 9007199254740992 (HUGEINT), BIGINT 9007199254740993, equal: False
set -eu
packages="duckdb==1.5.5 duckdb-extension-ducklake==1.5.5"
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
from pathlib import Path

import duckdb
import duckdb_extension_ducklake

LARGE = 9_007_199_254_740_993  # 2^53 + 1: 104 days of recordings in nanoseconds
(extension,) = Path(duckdb_extension_ducklake.__file__).parent.rglob("ducklake.duckdb_extension")
con = duckdb.connect()
con.execute(f"LOAD '{extension}'")
con.execute("ATTACH 'ducklake:lake.ducklake' AS lake (DATA_PATH 'files/', DATA_INLINING_ROW_LIMIT 10)")
con.execute("USE lake")
con.execute(
    "CREATE TABLE sums AS SELECT sum(ns) AS hugeint, sum(ns)::BIGINT AS bigint "
    f"FROM (VALUES ({LARGE - 1}::BIGINT), (1::BIGINT)) AS runs (ns)"
)

seen = {}
for moment in ("inlined", "flushed"):
    if moment == "flushed":
        con.execute("CALL ducklake_flush_inlined_data('lake')")
    row = con.execute("SELECT hugeint, bigint, hugeint = bigint, typeof(hugeint) FROM sums").fetchone()
    seen[moment] = list(row)
    print(f"{moment}: HUGEINT {row[0]} ({row[3]}), BIGINT {row[1]}, equal: {row[2]}")

expected = {
    "inlined": [9007199254740993, 9007199254740993, True, "HUGEINT"],
    "flushed": [9007199254740992, 9007199254740993, False, "HUGEINT"],
}
if seen != expected:
    sys.exit(f"CHANGED: expected {expected}")
print("As described.")
END
