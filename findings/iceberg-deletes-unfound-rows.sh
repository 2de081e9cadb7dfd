#!/bin/sh
# Guess: `delete(condition)` removes the rows that `scan(condition)` finds, however a table is partitioned.
# What happens: in a table that is partitioned by outcome, `outcome != 'ok'` finds the failed episode, and deletes
#   those without an outcome too: nobody has judged them, and they are gone. Without partitions they stay.
# Versions: pyiceberg 0.12.0, pyarrow 26.0.1, sqlalchemy 2.1.9
# Output on 28 November 2026:
#   whole, outcome != 'ok': found [2], deleted [2]
#   partitioned, outcome != 'ok': found [2], deleted [1, 2, 3]
#   partitioned_equal, outcome == 'failed': found [2], deleted [2]
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

warnings.simplefilter("ignore")
catalog = InMemoryCatalog("lake", warehouse=Path.cwd().as_uri())
catalog.create_namespace("a")
outcomes = {0: "ok", 1: None, 2: "failed", 3: None, 4: "ok"}
rows = pa.table({"episode": list(outcomes), "outcome": pa.array(outcomes.values(), pa.string())})


def episodes(scan):
    return sorted(scan.to_arrow()["episode"].to_pylist())


def look(name, partitioned, condition):
    table = catalog.create_table(f"a.{name}", schema=rows.schema)
    if partitioned:
        with table.update_spec() as update:
            update.add_identity("outcome")
    table.append(rows)
    found = episodes(table.scan(condition))
    table.delete(condition)
    deleted = sorted(set(outcomes) - set(episodes(table.scan())))
    print(f"{name}, {condition}: found {found}, deleted {deleted}")
    return found, deleted


seen = {
    "whole": look("whole", False, "outcome != 'ok'"),
    "partitioned": look("partitioned", True, "outcome != 'ok'"),
    "partitioned, equal": look("partitioned_equal", True, "outcome == 'failed'"),
}

expected = {
    "whole": ([2], [2]),
    "partitioned": ([2], [1, 2, 3]),
    "partitioned, equal": ([2], [2]),
}
if seen != expected:
    sys.exit(f"CHANGED: expected {expected}")
print("As described.")
END
