#!/bin/sh
# Guess: A blocking check of an asset with partitions holds back the partitions that failed it, and no others.
# What happens: A check without partitions_def runs once per partition, and only the last result counts for all: once
#   ep2 has passed, the labels of ep1 are requested, whose frames failed; where the last one failed, ep1 is held back,
#   which passed. With the asset's partitions_def given to the check (a preview), it is as guessed.
# Versions: dagster 1.13.29
# Output on 28 November 2026:
#   ep1 failed, ep2 passed: labels of ['ep1', 'ep2']
#   ep1 passed, ep2 failed: labels of []
#   ep1 failed, check with partitions: labels of ['ep2']
set -eu
packages="dagster==1.13.29"
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

EPISODES = dg.StaticPartitionsDefinition(["ep1", "ep2"])


def requested(bad, **options):
    @dg.asset(partitions_def=EPISODES)
    def frames():
        pass

    @dg.asset_check(asset=frames, blocking=True, **options)
    def complete(context: dg.AssetCheckExecutionContext):
        return dg.AssetCheckResult(passed=context.partition_key != bad)

    condition = dg.AutomationCondition.eager() & dg.AutomationCondition.all_deps_blocking_checks_passed()

    @dg.asset(partitions_def=EPISODES, deps=[frames], automation_condition=condition)
    def labels():
        pass

    job = dg.define_asset_job("record", selection=[frames])
    project = dg.Definitions([frames, labels], asset_checks=[complete], jobs=[job])
    instance = dg.DagsterInstance.ephemeral(tempdir=tempfile.mkdtemp(dir="."))
    tick = dg.evaluate_automation_conditions(project, instance)
    for episode in ("ep1", "ep2"):
        project.resolve_job_def("record").execute_in_process(
            partition_key=episode, instance=instance, raise_on_error=False
        )
    tick = dg.evaluate_automation_conditions(project, instance, cursor=tick.cursor)
    return sorted(tick.get_requested_partitions(dg.AssetKey("labels")))


seen = {
    "ep1 failed, ep2 passed": requested("ep1"),
    "ep1 passed, ep2 failed": requested("ep2"),
    "ep1 failed, check with partitions": requested("ep1", partitions_def=EPISODES),
}
for name, value in seen.items():
    print(f"{name}: labels of {value}")

expected = {
    "ep1 failed, ep2 passed": ["ep1", "ep2"],
    "ep1 passed, ep2 failed": [],
    "ep1 failed, check with partitions": ["ep2"],
}
if seen != expected:
    sys.exit(f"CHANGED: expected {expected}")
print("As described.")
END
