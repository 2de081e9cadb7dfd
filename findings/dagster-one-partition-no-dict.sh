#!/bin/sh
# Guess: an asset downstream of all partitions gets a dict of them by key, of whatever length.
# What happens: with two partitions a dict, with one the bare value, with none None: an average over episodes breaks,
#   or takes an episode's own dict for the dict of episodes, in the corpus that has one episode yet.
# Versions: dagster 1.13.27
# Output on 27 November 2026:
#   0 partitions: None
#   1 partitions: {'frames': 100, 'end': 1.0}
#   2 partitions: {'ep1': {'frames': 100, 'end': 1.0}, 'ep2': {'frames': 100, 'end': 1.0}}
set -eu
packages="dagster==1.13.27"
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
import tempfile
import warnings

warnings.simplefilter("ignore")
logging.disable(logging.CRITICAL)
import dagster as dg

episodes = dg.DynamicPartitionsDefinition(name="episodes")
given = []


@dg.asset(partitions_def=episodes)
def progress(context: dg.AssetExecutionContext):
    return {"frames": 100, "end": 1.0}


@dg.asset
def summary(progress) -> None:
    given.append(progress)


seen = {}
with tempfile.TemporaryDirectory() as home, dg.DagsterInstance.local_temp(home) as instance:
    resources = {"io_manager": dg.FilesystemIOManager(base_dir=home)}
    for count in range(3):
        if count:
            instance.add_dynamic_partitions("episodes", [f"ep{count}"])
            dg.materialize([progress], partition_key=f"ep{count}", instance=instance, resources=resources)
        dg.materialize([progress, summary], selection=[summary], instance=instance, resources=resources)
        seen[count] = given[-1]
        print(f"{count} partitions: {seen[count]}")

episode = {"frames": 100, "end": 1.0}
expected = {0: None, 1: episode, 2: {"ep1": episode, "ep2": episode}}
if seen != expected:
    sys.exit(f"CHANGED: expected {expected}")
print("As described.")
END
