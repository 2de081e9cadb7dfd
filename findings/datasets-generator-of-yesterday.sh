#!/bin/sh
# Guess: Dataset.from_generator() runs the generator, and has the episodes that the folder holds now.
# What happens: It keeps the rows of the first run by the generator's code and its arguments. For the same folder with
#   more episodes, and with a corrected outcome, it gives the old rows without running the generator, in each later
#   process, too. load_dataset() sees that files have changed.
# Versions: datasets 5.2.0, numpy 2.4.6
# Output on 28 November 2026:
#   from_generator: ['success', 'success'], later ['success', 'success']
#   load_dataset: ['success', 'success'], later ['success', 'failure', 'success']
#   the generator ran: 1 times
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
import sys
from pathlib import Path

os.environ |= {"HF_HOME": os.path.abspath("home"), "HF_HUB_OFFLINE": "1"}
import datasets

datasets.disable_progress_bars()
RUNS = Path("runs.txt")
RUNS.touch()


def record(outcomes):
    for number, outcome in enumerate(outcomes):
        Path("episodes").mkdir(exist_ok=True)
        Path(f"episodes/{number}.json").write_text(json.dumps({"outcome": outcome}))


def episodes(folder):
    with RUNS.open("a") as file:
        file.write("a run\n")
    for path in sorted(Path(folder).glob("*.json")):
        yield json.loads(path.read_text())


def outcomes():
    generated = datasets.Dataset.from_generator(episodes, gen_kwargs={"folder": "episodes"})
    loaded = datasets.load_dataset("json", data_files="episodes/*.json", split="train")
    return {"from_generator": generated["outcome"][:], "load_dataset": loaded["outcome"][:]}


record(["success", "success"])
first = outcomes()
record(["success", "failure", "success"])
seen = {"first": first, "later": outcomes(), "runs": len(RUNS.read_text().splitlines())}
for name, outcome in first.items():
    print(f"{name}: {outcome}, later {seen['later'][name]}")
print(f"the generator ran: {seen['runs']} times")

old = ["success", "success"]
expected = {
    "first": {"from_generator": old, "load_dataset": old},
    "later": {"from_generator": old, "load_dataset": ["success", "failure", "success"]},
    "runs": 1,
}
if seen != expected:
    sys.exit(f"CHANGED: expected {expected}")
print("As described.")
END
