#!/bin/sh
# Guess: Episodes held out by USING SAMPLE, kept as a relation or a view, are the same each time, and none of them is
#   among those that are not held out.
# What happens: Both are the query: the sample is drawn anew wherever they are named. "Not held out" leaves out another
#   hundred, and nine in ten of the episodes held out are trained on. A table is drawn once, and a CTE once per query.
# Versions: duckdb 2.0.1
# Output on 28 November 2026:
#   held_relation: 100 held out, 900 others, both: most
#   held_view: 100 held out, 900 others, both: most
#   held_table: 100 held out, 900 others, both: 0
#   a CTE with itself: 100
set -eu
packages="duckdb==2.0.1"
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

SAMPLE = "FROM episodes USING SAMPLE reservoir(100 ROWS)"
lake = duckdb.connect()
lake.execute("CREATE TABLE episodes AS SELECT range AS episode FROM range(1000)")
lake.execute(f"CREATE VIEW held_view AS {SAMPLE}")
lake.execute(f"CREATE TABLE held_table AS {SAMPLE}")
held_relation = lake.sql(SAMPLE)
REST = "SELECT episode FROM episodes WHERE episode NOT IN (FROM {})"


def trained_on(name):
    """How many of 100 held-out episodes, read first, are among those that are not held out."""
    held = set(lake.sql(f"FROM {name}").fetchall())
    rest = set(lake.sql(REST.format(name)).fetchall())
    return len(held), len(rest), len(held & rest)


seen = {}
for name in ("held_relation", "held_view", "held_table"):
    num_held, num_rest, num_both = trained_on(name)
    seen[name] = f"{num_held} held out, {num_rest} others, both: {'most' if num_both > 50 else num_both}"
twice = lake.sql(f"WITH held AS ({SAMPLE}) SELECT count(*) FROM held JOIN held AS again USING (episode)")
seen["a CTE with itself"] = twice.fetchall()[0][0]
for name, value in seen.items():
    print(f"{name}: {value}")

expected = {
    "held_relation": "100 held out, 900 others, both: most",
    "held_view": "100 held out, 900 others, both: most",
    "held_table": "100 held out, 900 others, both: 0",
    "a CTE with itself": 100,
}
if seen != expected:
    sys.exit(f"CHANGED: expected {expected}")
print("As described.")
END
