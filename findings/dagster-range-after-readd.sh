#!/bin/sh
# Guess: a range of partitions ep1...ep3 means ep1, ep2 and ep3.
# What happens: a range of dynamic partitions goes by the order in which keys were added. An episode that was deleted
#   and added again stands last: the run of ep1...ep3 leaves ep2 out and succeeds; the run of ep2...ep3 does nothing and
#   succeeds.
# Versions: dagster 1.13.27
# Output on 27 November 2026:
#   ep1...ep3: success, done: ep1, ep2, ep3
#   ep1...ep3, ep2 added again: success, done: ep1, ep3
#   ep2...ep3: success, done: nothing
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
done = []


@dg.asset(partitions_def=episodes, backfill_policy=dg.BackfillPolicy.single_run())
def labels(context: dg.AssetExecutionContext) -> None:
    done.extend(context.partition_keys)


def run(instance, first, last):
    done.clear()
    tags = {"dagster/asset_partition_range_start": first, "dagster/asset_partition_range_end": last}
    return [dg.materialize([labels], instance=instance, tags=tags).success, list(done)]


seen = {}
with tempfile.TemporaryDirectory() as home, dg.DagsterInstance.local_temp(home) as instance:
    instance.add_dynamic_partitions("episodes", [f"ep{number}" for number in range(6)])
    seen["ep1...ep3"] = run(instance, "ep1", "ep3")
    instance.delete_dynamic_partition("episodes", "ep2")
    instance.add_dynamic_partitions("episodes", ["ep2"])
    seen["ep1...ep3, ep2 added again"] = run(instance, "ep1", "ep3")
    seen["ep2...ep3"] = run(instance, "ep2", "ep3")
for name, (success, keys) in seen.items():
    print(f"{name}: {'success' if success else 'failure'}, done: {', '.join(keys) or 'nothing'}")

expected = {
    "ep1...ep3": [True, ["ep1", "ep2", "ep3"]],
    "ep1...ep3, ep2 added again": [True, ["ep1", "ep3"]],
    "ep2...ep3": [True, []],
}
if seen != expected:
    sys.exit(f"CHANGED: expected {expected}")
print("As described.")
END
