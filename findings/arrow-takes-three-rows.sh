#!/bin/sh
# Guess: taking three rows of a table of 60 million frames needs three rows.
# What happens: where the text of all rows together is above 2 GiB (a task of 40 letters a frame), take() raises
#   ArrowInvalid, an overflow of offsets: it joins the whole column first. filter() works, and so does take() where the
#   text is a dictionary.
# Versions: pyarrow 26.0.1, numpy 2.2.6
# Output on 27 November 2026:
#   60,000,000 rows, 2.5 GiB
#   three rows by take: offset overflow while concatenating arrays
#   three rows by filter: 3
#   three rows by take, dictionary: 3
#   three rows by take, of 50 million rows: 3
set -eu
packages="pyarrow==26.0.1 numpy==2.2.6"
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

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

text = "pick up the red cube, put it in the tray"
chunk = pa.array([text] * 1_000_000)
column = pa.chunked_array([chunk] * 60)  # the same million 60 times: it takes little memory
frames = pa.table({"index": np.arange(len(column)), "task": column})
rows = pa.array([0, 30_000_000, 59_999_999])
is_one = pc.field("index").isin(rows)


def outcome(act):
    try:
        return act().num_rows
    except pa.ArrowInvalid as error:
        return str(error).split(",")[0]


coded = frames.set_column(1, "task", pa.chunked_array([chunk.dictionary_encode()] * 60))
seen = {
    "take": outcome(lambda: frames.take(rows)),
    "filter": outcome(lambda: frames.filter(is_one)),
    "take, dictionary": outcome(lambda: coded.take(rows)),
    "take, of 50 million rows": outcome(lambda: frames.slice(0, 50_000_000).take(pa.array([0, 1, 2]))),
}
print(f"{len(column):,} rows, {column.nbytes / 2**30:.1f} GiB")
for name, value in seen.items():
    print(f"three rows by {name}: {value}")

expected = {
    "take": "offset overflow while concatenating arrays",
    "filter": 3,
    "take, dictionary": 3,
    "take, of 50 million rows": 3,
}
if seen != expected:
    sys.exit(f"CHANGED: expected {expected}")
print("As described.")
END
