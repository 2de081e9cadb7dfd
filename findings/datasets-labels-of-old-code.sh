#!/bin/sh
# Guess: map() labels anew when the code of the labels has changed: its cache goes by the function.
# What happens: A function that comes from a module is known by its name alone. After a change of the module the next
#   run gets the old labels from the cache, as it does where a function of the script calls one of the module. A change
#   in the script itself is seen.
# Versions: datasets 5.2.0, numpy 2.4.6
# Output on 28 November 2026:
#   function of the module: [0.0, 0.25, 0.5], after the change [0.0, 0.25, 0.5]
#   script calls the module: [0.0, 0.25, 0.5], after the change [0.0, 0.25, 0.5]
#   function of the script: [0.0, 0.25, 0.5], after the change [0.0, 0.5, 1.0]
set -eu
packages="datasets==5.2.0 numpy==2.4.6"
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
import json
import os
import subprocess
import sys
from pathlib import Path

LABELS = """
def progress(row):
    return {"progress": row["frame_index"] / LAST}
"""
RUN = """
import json
import datasets
import labels

datasets.disable_progress_bars()
frames = datasets.load_dataset("json", data_files="frames.jsonl", split="train")


def through_module(row):
    return labels.progress(row)


def of_script(row):
    return {"progress": row["frame_index"] / LAST}


ways = {
    "function of the module": labels.progress,
    "script calls the module": through_module,
    "function of the script": of_script,
}
print(json.dumps({name: frames.map(function)["progress"][:] for name, function in ways.items()}))
"""
os.environ |= {"HF_HOME": os.path.abspath("home"), "HF_HUB_OFFLINE": "1", "PYTHONDONTWRITEBYTECODE": "1"}
Path("frames.jsonl").write_text("".join(json.dumps({"frame_index": number}) + "\n" for number in range(3)))


def run(last):
    """A new process with the labels of this version of the code."""
    Path("labels.py").write_text(LABELS.replace("LAST", last))
    Path("run.py").write_text(RUN.replace("LAST", last))
    return json.loads(subprocess.run([sys.executable, "run.py"], check=True, capture_output=True, text=True).stdout)


seen = {"before": run("4"), "after": run("2")}
for name, progress in seen["before"].items():
    print(f"{name}: {progress}, after the change {seen['after'][name]}")

old = [0.0, 0.25, 0.5]
new = [0.0, 0.5, 1.0]
expected = {
    "before": {"function of the module": old, "script calls the module": old, "function of the script": old},
    "after": {"function of the module": old, "script calls the module": old, "function of the script": new},
}
if seen != expected:
    sys.exit(f"CHANGED: expected {expected}")
print("As described.")
END
