#!/bin/sh
# Guess: episodes without an outcome are all found by `outcome != 'ok'`, or none of them is, as in SQL.
# What happens: it depends on the file. Of a file written before the column was added, all are found; of a later one,
#   none. Writing the same rows again changes the answer: two of three episodes are no longer found.
# Versions: pyiceberg 0.12.0, pyarrow 26.0.1, sqlalchemy 2.1.9
# Output on 28 November 2026:
#   as written, outcome is null: [0, 1, 3]
#   as written, outcome != 'ok': [0, 1, 4]
#   as written, score != 0.9: [0, 1, 4]
#   as written, not (score > 0.5): [0, 1, 4]
#   as written, score <= 0.5: [4]
#   the same rows in one file, outcome is null: [0, 1, 3]
#   the same rows in one file, outcome != 'ok': [4]
#   the same rows in one file, score != 0.9: [4]
#   the same rows in one file, not (score > 0.5): [4]
#   the same rows in one file, score <= 0.5: [4]
set -eu
packages="pyiceberg==0.12.0 pyarrow==26.0.1 sqlalchemy==2.1.9"
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
from pathlib import Path

import pyarrow as pa
from pyiceberg.catalog.memory import InMemoryCatalog
from pyiceberg.types import DoubleType, StringType

warnings.simplefilter("ignore")
catalog = InMemoryCatalog("lake", warehouse=Path.cwd().as_uri())
catalog.create_namespace("a")
table = catalog.create_table("a.episodes", schema=pa.schema({"episode": pa.int64()}))
table.append(pa.table({"episode": [0, 1]}))
with table.update_schema() as update:
    update.add_column("outcome", StringType())
    update.add_column("score", DoubleType())
later = {"episode": [2, 3, 4], "outcome": ["ok", None, "failed"], "score": [0.9, None, 0.2]}
table.append(pa.table(later))
conditions = ["outcome is null", "outcome != 'ok'", "score != 0.9", "not (score > 0.5)", "score <= 0.5"]


def look(name):
    found = {}
    for condition in conditions:
        found[condition] = sorted(table.scan(condition).to_arrow()["episode"].to_pylist())
        print(f"{name}, {condition}: {found[condition]}")
    return found


seen = {"as written": look("as written")}
table.overwrite(table.scan().to_arrow())
seen["the same rows in one file"] = look("the same rows in one file")

expected = {
    "as written": {
        "outcome is null": [0, 1, 3],
        "outcome != 'ok'": [0, 1, 4],
        "score != 0.9": [0, 1, 4],
        "not (score > 0.5)": [0, 1, 4],
        "score <= 0.5": [4],
    },
    "the same rows in one file": {
        "outcome is null": [0, 1, 3],
        "outcome != 'ok'": [4],
        "score != 0.9": [4],
        "not (score > 0.5)": [4],
        "score <= 0.5": [4],
    },
}
if seen != expected:
    sys.exit(f"CHANGED: expected {expected}")
print("As described.")
END
