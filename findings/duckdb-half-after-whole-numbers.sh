#!/bin/sh
# Guess: a score of 0.5 in a file of zeros and ones is read as 0.5, or refused.
# What happens: DuckDB takes the type from the first 20,480 rows. Behind 25,000 whole numbers, 0.5 is 0 from JSON lines
#   and 1 from CSV: of 5,000 such scores the sum, 15,000, is 12,500 or 17,500. Nothing warns of it; with sample_size=-1
#   it is right.
# Versions: duckdb 1.5.5
# Output on 29 November 2026:
#   csv, as it is: sum 17500.0, the last score 1.0, true: 15000.0, 0.5
#   csv, sample_size=-1: sum 15000.0, the last score 0.5, true: 15000.0, 0.5
#   json, as it is: sum 12500.0, the last score 0.0, true: 15000.0, 0.5
#   json, sample_size=-1: sum 15000.0, the last score 0.5, true: 15000.0, 0.5
set -eu
packages="duckdb==1.5.5"
python=$("${PYTHON:-python3}" -c "import sys; print(sys.executable)")
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
if command -v uv >/dev/null; then
  uv venv --quiet --python "$python" env
  uv pip install --quiet --python env/bin/python "$packages"
else
  "$python" -m venv env
  env/bin/python -m pip install --quiet "$packages"
fi
env/bin/python - <<'END'
import sys
from pathlib import Path

import duckdb

scores = [number % 2 for number in range(25_000)] + [0.5] * 5_000
Path("scores.csv").write_text("score\n" + "".join(f"{score}\n" for score in scores))
Path("scores.jsonl").write_text("".join(f'{{"score": {score}}}\n' for score in scores))
seen = {}
for form, call in {"csv": "read_csv('scores.csv'", "json": "read_json('scores.jsonl'"}.items():
    for name, more in {"as it is": "", "sample_size=-1": ", sample_size=-1"}.items():
        total, last = duckdb.sql(f"SELECT sum(score)::DOUBLE, last(score) FROM {call}{more})").fetchone()
        seen[f"{form}, {name}"] = [total, float(last)]
        print(f"{form}, {name}: sum {total}, the last score {float(last)}, true: {float(sum(scores))}, 0.5")

expected = {
    "csv, as it is": [17500.0, 1.0],
    "csv, sample_size=-1": [15000.0, 0.5],
    "json, as it is": [12500.0, 0.0],
    "json, sample_size=-1": [15000.0, 0.5],
}
if seen != expected:
    sys.exit(f"CHANGED: expected {expected}")
print("As described.")
END
