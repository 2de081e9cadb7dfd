#!/bin/sh
# Guess: load_dataset(FOLDER) reads all files of a folder of episodes, one file per task, as one split: a task's name
#   is a name.
# What happens: test, train, dev, val, eval and their like are taken for splits where they are words of a name, and
#   where there is one such name all files without such a word are left out. Of pick_cup, lift_test_tube and
#   push_toy_train, the test tube is held out, the train is the training set, and pick_cup is nowhere. Among 20 tasks
#   one test tube is all that is read. Files named by data_files are all read. Nothing warns of it.
# Versions: datasets 5.2.0, pyarrow 26.0.1, numpy 2.2.6
# Output on 30 November 2026:
#   three tasks: {'train': ['push_toy_train'], 'test': ['lift_test_tube']}
#   three tasks, by data_files: {'train': ['lift_test_tube', 'pick_cup', 'push_toy_train']}
#   three others: {'train': ['lift_bottle', 'pick_cup', 'push_toy_car']}
#   20 tasks: {'test': ['lift_test_tube']}
#   warnings: []
set -eu
packages="datasets==5.2.0 pyarrow==26.0.1 numpy==2.2.6"
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
import logging
import sys
import warnings
from pathlib import Path

import datasets
import pyarrow as pa
import pyarrow.parquet as pq

datasets.disable_progress_bars()
said = []
warnings.showwarning = lambda *args, **_: said.append(str(args[0]))
handler = logging.Handler(logging.WARNING)
handler.emit = lambda record: said.append(record.getMessage())
datasets.utils.logging.get_logger().addHandler(handler)


def folder(name, tasks):
    Path(name).mkdir()
    for task in tasks:
        pq.write_table(pa.table({"task": [task] * 2, "progress": [0.0, 1.0]}), f"{name}/{task}.parquet")
    return name


def tasks_by_split(path, **options):
    splits = datasets.load_dataset(path, cache_dir="cache", **options)
    return {name: sorted(set(rows["task"])) for name, rows in splits.items()}


three = folder("three", ["pick_cup", "lift_test_tube", "push_toy_train"])
others = folder("others", ["pick_cup", "lift_bottle", "push_toy_car"])
twenty = folder("twenty", ["lift_test_tube"] + [f"pick_object_{k}" for k in range(19)])
seen = {
    "three tasks": tasks_by_split(three),
    "three tasks, by data_files": tasks_by_split("parquet", data_files=f"{three}/*.parquet"),
    "three others": tasks_by_split(others),
    "20 tasks": tasks_by_split(twenty),
    "warnings": said,
}
for name, value in seen.items():
    print(f"{name}: {value}")

expected = {
    "three tasks": {"train": ["push_toy_train"], "test": ["lift_test_tube"]},
    "three tasks, by data_files": {"train": ["lift_test_tube", "pick_cup", "push_toy_train"]},
    "three others": {"train": ["lift_bottle", "pick_cup", "push_toy_car"]},
    "20 tasks": {"test": ["lift_test_tube"]},
    "warnings": [],
}
if seen != expected:
    sys.exit(f"CHANGED: expected {expected}")
print("As described.")
END
