#!/bin/sh
# Guess: load_dataset("webdataset") gives each sample what its shard holds, or raises where samples differ.
# What happens: the first five samples decide fields and types. A field that begins later is dropped, and a progress of
#   0.5 is 0 where those five have whole numbers, in memory and streamed. Nothing warns of it.
# Versions: datasets 4.8.5, pyarrow 26.0.1
# Output on 27 November 2026:
#   streaming False, the eighth sample: {'progress': 0}, fields ['json', 'txt']
#   streaming True, the eighth sample: {'progress': 0}, fields ['json', 'txt']
#   in the shard: {"progress": 0.5, "kind": "retry"}, fields json, txt, failure.txt
set -eu
packages="datasets==4.8.5 pyarrow==26.0.1"
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
import io
import json
import os
import sys
import tarfile

os.environ["HF_HUB_OFFLINE"] = "1"
import datasets

datasets.disable_progress_bars()
with tarfile.open("shard.tar", "w") as tar:
    for number in range(8):
        is_late = number >= 5
        label = {"progress": 0.5, "kind": "retry"} if is_late else {"progress": 0}
        members = {"json": json.dumps(label).encode(), "txt": b"pick up the cube"}
        if is_late:
            members["failure.txt"] = b"dropped"
        for suffix, content in members.items():
            member = tarfile.TarInfo(f"{number:04d}.{suffix}")
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))

seen = {}
for streaming in (False, True):
    shard = datasets.load_dataset(
        "webdataset", data_files={"train": "shard.tar"}, split="train", streaming=streaming, cache_dir="cache"
    )
    samples = list(shard)
    seen[f"streaming {streaming}"] = [samples[7]["json"], sorted(k for k in samples[7] if k[0] != "_")]
    print(f"streaming {streaming}, the eighth sample: {samples[7]['json']}, fields {seen[f'streaming {streaming}'][1]}")
print('in the shard: {"progress": 0.5, "kind": "retry"}, fields json, txt, failure.txt')

expected = {
    "streaming False": [{"progress": 0}, ["json", "txt"]],
    "streaming True": [{"progress": 0}, ["json", "txt"]],
}
if seen != expected:
    sys.exit(f"CHANGED: expected {expected}")
print("As described.")
END
