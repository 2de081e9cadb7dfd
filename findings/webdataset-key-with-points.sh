#!/bin/sh
# Guess: samples with keys such as `pick_v1.2_000001` come back one by one, or the writer refuses the point.
# What happens: WebDataset's reader takes all that follows the first point for the extension: six samples are one,
#   `pick_v1`, whose fields are `2_000000.json` and so on. The writer takes such keys, and nothing warns of it.
# Versions: webdataset 1.0.2, numpy 2.2.6
# Output on 29 November 2026:
#   keys pick_v1_...: samples 6, the first pick_v1_000000, with fields 1: json ...
#   keys pick_v1.2_...: samples 1, the first pick_v1, with fields 6: 2_000000.json ...
set -eu
packages="webdataset==1.0.2 numpy==2.2.6"
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

import webdataset as wds

seen = {}
for name in ("pick_v1", "pick_v1.2"):
    with wds.TarWriter(f"{name}.tar") as writer:
        for number in range(6):
            writer.write({"__key__": f"{name}_{number:06d}", "json": {"frame": number}})
    samples = list(wds.WebDataset(f"{name}.tar", shardshuffle=False))
    fields = sorted(field for field in samples[0] if not field.startswith("__"))
    seen[name] = [len(samples), samples[0]["__key__"], len(fields), fields[0]]
    count, key, number_of_fields, first = seen[name]
    print(f"keys {name}_...: samples {count}, the first {key}, with fields {number_of_fields}: {first} ...")

expected = {
    "pick_v1": [6, "pick_v1_000000", 1, "json"],
    "pick_v1.2": [1, "pick_v1", 6, "2_000000.json"],
}
if seen != expected:
    sys.exit(f"CHANGED: expected {expected}")
print("As described.")
END
