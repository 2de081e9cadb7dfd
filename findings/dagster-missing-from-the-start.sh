#!/bin/sh
# Guess: an asset with AutomationCondition.on_missing, or eager, is asked for where a partition lacks it.
# What happens: not if it lacked it when Dagster first looked: of 20 partitions with their dependencies made before
#   that, none is asked for in five looks, by either condition; one that is added later is. `missing()` asks for all
#   20, at each look. Nothing says why.
# Versions: dagster 1.13.29
# Output on 29 November 2026:
#   on_missing: asked for in six looks, the last after one more: [0, 0, 0, 0, 0, 1]
#   eager: asked for in six looks, the last after one more: [0, 0, 0, 0, 0, 1]
#   missing: asked for in six looks, the last after one more: [20, 20, 20, 20, 20, 21]
set -eu
packages="dagster==1.13.29"
python=$("${PYTHON:-python3}" -c "import sys; print(sys.executable)")
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
if command -v uv >/dev/null; then
  uv venv --quiet --python "$python" env
  uv pip install --quiet --python env/bin/python "$packages"
else
  "$python" -m venv env
  env/bin/python -m pip install --quiet "$packages"
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


@dg.asset(partitions_def=episodes)
def frames() -> None: ...


def asked_for(condition):
    """How many partitions are asked for in five looks, and after another one was added."""

    @dg.asset(partitions_def=episodes, deps=[frames], automation_condition=condition)
    def progress() -> None: ...

    definitions = dg.Definitions(assets=[frames, progress])
    with tempfile.TemporaryDirectory() as home, dg.DagsterInstance.local_temp(home) as instance:

        def add(numbers):
            names = [f"ep{number}" for number in numbers]
            instance.add_dynamic_partitions("episodes", names)
            for name in names:
                instance.report_runless_asset_event(dg.AssetMaterialization("frames", partition=name))

        add(range(20))
        cursor, counts = None, []
        for look in range(6):
            if look == 5:
                add([20])
            result = dg.evaluate_automation_conditions(definitions, instance, cursor=cursor)
            cursor = result.cursor
            counts.append(result.get_num_requested(dg.AssetKey("progress")))
    return counts


seen = {
    "on_missing": asked_for(dg.AutomationCondition.on_missing()),
    "eager": asked_for(dg.AutomationCondition.eager()),
    "missing": asked_for(dg.AutomationCondition.missing()),
}
for name, counts in seen.items():
    print(f"{name}: asked for in six looks, the last after one more: {counts}")

expected = {
    "on_missing": [0, 0, 0, 0, 0, 1],
    "eager": [0, 0, 0, 0, 0, 1],
    "missing": [20, 20, 20, 20, 20, 21],
}
if seen != expected:
    sys.exit(f"CHANGED: expected {expected}")
print("As described.")
END
