#!/bin/sh
# Guess: DuckLake only refers to a Parquet file that ducklake_add_data_files names: the data files of a LeRobot dataset
#   stay where they are.
# What happens: the lake owns the file from then on. After a merge, expiry and clean-up, or a DROP TABLE, it deletes
#   the dataset's files from their folder. A file may be added twice, and its rows then count twice.
# Versions: duckdb 1.5.5, duckdb-extension-ducklake 1.5.5, pyarrow 26.0.1
# Output on 27 November 2026:
#   files before: 3
#   rows: 12
#   rows after one file was added again: 16
#   files after upkeep: 0
set -eu
packages="duckdb==1.5.5 duckdb-extension-ducklake==1.5.5 pyarrow==26.0.1"
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
from importlib.util import find_spec
from pathlib import Path

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq

folder = Path("dataset/data/chunk-000")
folder.mkdir(parents=True)
for episode in range(3):
    table = pa.table({"episode_index": [episode] * 4, "frame_index": [0, 1, 2, 3]})
    pq.write_table(table, folder / f"file-{episode:03d}.parquet")

package = Path(find_spec("duckdb_extension_ducklake").submodule_search_locations[0])
extension = next(package.rglob("*.duckdb_extension"))
con = duckdb.connect()
con.execute(f"LOAD '{extension}'")
con.execute("ATTACH 'ducklake:lake.db' AS lake (DATA_PATH 'lake_data')")
con.execute("USE lake")
con.execute("CREATE TABLE frames (episode_index BIGINT, frame_index BIGINT)")
for file in sorted(folder.iterdir()):
    con.execute(f"CALL ducklake_add_data_files('lake', 'frames', '{file}')")
seen = {"files before": len(list(folder.iterdir()))}
seen["rows"] = con.execute("SELECT count(*) FROM frames").fetchone()[0]
con.execute(f"CALL ducklake_add_data_files('lake', 'frames', '{folder / 'file-000.parquet'}')")
seen["rows after one file was added again"] = con.execute("SELECT count(*) FROM frames").fetchone()[0]

con.execute("CALL ducklake_merge_adjacent_files('lake')")
con.execute("CALL ducklake_expire_snapshots('lake', older_than => now())")
con.execute("CALL ducklake_cleanup_old_files('lake', cleanup_all => true)")
seen["files after upkeep"] = len(list(folder.iterdir()))
for name, value in seen.items():
    print(f"{name}: {value}")

expected = {
    "files before": 3,
    "rows": 12,
    "rows after one file was added again": 16,
    "files after upkeep": 0,
}
if seen != expected:
    sys.exit(f"CHANGED: expected {expected}")
print("As described.")
END
