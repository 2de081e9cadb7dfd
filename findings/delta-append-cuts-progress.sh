#!/bin/sh
# Guess: a column whose first rows were 0 and 1 is of whole numbers; appending progress of 0.25 to it raises, or widens
#   the column, all the more with schema_mode="merge".
# What happens: Delta Lake's Python writer cuts 0.25 and 0.99 to 0, with and without "merge", and says nothing; so does
#   a merge. PyIceberg refuses the same append. Where the first labels were all or nothing, every later one is.
# Versions: deltalake 1.6.6, pyiceberg 0.12.0, pyarrow 26.0.1, sqlalchemy 2.1.9
# Output on 28 November 2026:
#   append: [0, 1, 0, 0, 0]
#   append, schema_mode=merge: [0, 1, 0, 0, 0]
#   merge: [0, 1, 0, 0, 0]
#   iceberg: Mismatch in fields:
set -eu
packages="deltalake==1.6.6 pyiceberg==0.12.0 pyarrow==26.0.1 sqlalchemy==2.1.9"
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
import contextlib
import io
import sys
import warnings
from pathlib import Path

import pyarrow as pa
from deltalake import DeltaTable, write_deltalake
from pyiceberg.catalog.memory import InMemoryCatalog

warnings.simplefilter("ignore")
first = pa.table({"frame": [0, 1], "progress": [0, 1]})
second = pa.table({"frame": [2, 3, 4], "progress": [0.25, 0.5, 0.99]})


def stored(folder):
    table = DeltaTable(folder).to_pyarrow_table().sort_by("frame")
    return table["progress"].to_pylist()


def appended(**options):
    folder = "delta" + "".join(options)
    write_deltalake(folder, first)
    write_deltalake(folder, second, mode="append", **options)
    return stored(folder)


def merged():
    write_deltalake("merged", first)
    merge = DeltaTable("merged").merge(second, "old.frame = new.frame", "new", "old")
    merge.when_not_matched_insert_all().execute()
    return stored("merged")


def iceberg():
    catalog = InMemoryCatalog("lake", warehouse=Path.cwd().as_uri())
    catalog.create_namespace("a")
    table = catalog.create_table("a.labels", schema=first.schema)
    table.append(first)
    try:
        with contextlib.redirect_stdout(io.StringIO()):  # A table of its columns
            table.append(second)
    except ValueError as error:
        return str(error).splitlines()[0]
    return table.scan().to_arrow()["progress"].to_pylist()


seen = {
    "append": appended(),
    "append, schema_mode=merge": appended(schema_mode="merge"),
    "merge": merged(),
    "iceberg": iceberg(),
}
for name, value in seen.items():
    print(f"{name}: {value}")

expected = {
    "append": [0, 1, 0, 0, 0],
    "append, schema_mode=merge": [0, 1, 0, 0, 0],
    "merge": [0, 1, 0, 0, 0],
    "iceberg": "Mismatch in fields:",
}
if seen != expected:
    sys.exit(f"CHANGED: expected {expected}")
print("As described.")
END
