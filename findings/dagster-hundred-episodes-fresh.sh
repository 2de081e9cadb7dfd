#!/bin/sh
# Guess: An asset made of all partitions of another one is stale as soon as one of them is made again, however many there
#   are.
# What happens: With 99 partitions it is stale and says why. With 100 and more it stays fresh: their data versions are
#   no longer looked at, and nothing says so. A release of a hundred episodes looks up to date after an episode was
#   corrected, when the same project with fewer episodes has shown that it works.
# Versions: dagster 1.13.28, dagster-graphql 1.13.28
# Output on 1 December 2026:
#   as made: {'release_99': 'FRESH', 'release_100': 'FRESH', 'release_101': 'FRESH'}
#   after ep007 was made again: {'release_99': 'STALE', 'release_100': 'FRESH', 'release_101': 'FRESH'}
#   causes: {'release_99': ['has a new materialization'], 'release_100': [], 'release_101': []}
set -eu
packages="dagster==1.13.28 dagster-graphql==1.13.28"
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
import logging
import os
import subprocess
import sys
from pathlib import Path

logging.disable(logging.CRITICAL)
home = Path("home").resolve()
home.mkdir()
(home / "dagster.yaml").write_text("telemetry:\n  enabled: false\n")
os.environ["DAGSTER_HOME"] = str(home)
Path("project.py").write_text('''
import dagster as dg


def assets(count):
    episodes = dg.StaticPartitionsDefinition([f"ep{number:03d}" for number in range(count)])

    @dg.asset(name=f"frames_{count}", partitions_def=episodes)
    def frames():
        pass

    @dg.asset(name=f"release_{count}", deps=[frames])
    def release():
        pass

    return frames, release


COUNTS = {count: assets(count) for count in (99, 100, 101)}
defs = dg.Definitions([asset for pair in COUNTS.values() for asset in pair])
''')
sys.path.insert(0, ".")
import dagster as dg
from project import COUNTS

QUERY = "{assetNodes{assetKey{path} staleStatus staleCauses{reason}}}"
COMMAND = [Path(sys.executable).with_name("dagster-graphql"), "-f", "project.py", "-t", QUERY]


def record(instance, frames, episode):
    """Another tool has made an episode's frames."""
    event = dg.AssetMaterialization(frames.key, partition=episode, tags={"dagster/data_version": "first"})
    instance.report_runless_asset_event(event)


def releases():
    """Each release's status and its causes, as the web page asks for them."""
    output = subprocess.run(COMMAND, capture_output=True, text=True, check=True).stdout
    answer = next(line for line in output.splitlines() if line.startswith("{"))
    nodes = json.loads(answer)["data"]["assetNodes"]
    found = {node["assetKey"]["path"][0]: node for node in nodes}
    return {name: found[name] for name in (f"release_{count}" for count in COUNTS)}


def status(found):
    return {name: node["staleStatus"] for name, node in found.items()}


with dg.DagsterInstance.get() as instance:
    for frames, release in COUNTS.values():
        for episode in frames.partitions_def.get_partition_keys():
            record(instance, frames, episode)
        dg.materialize([frames, release], selection=[release], instance=instance)
    made = status(releases())
    for frames, _ in COUNTS.values():
        dg.materialize([frames], partition_key="ep007", instance=instance)
    corrected = releases()

seen = {
    "as made": made,
    "after ep007 was made again": status(corrected),
    "causes": {name: [cause["reason"] for cause in node["staleCauses"]] for name, node in corrected.items()},
}
expected = {
    "as made": {"release_99": "FRESH", "release_100": "FRESH", "release_101": "FRESH"},
    "after ep007 was made again": {"release_99": "STALE", "release_100": "FRESH", "release_101": "FRESH"},
    "causes": {"release_99": ["has a new materialization"], "release_100": [], "release_101": []},
}
for name, value in seen.items():
    print(f"{name}: {value}")
if seen != expected:
    sys.exit(f"CHANGED: expected {expected}")
print("As described.")
END
