#!/bin/sh
# Guess: an episode that was taken out and is added again, with another recording, has no labels yet: they are missing,
#   and are made.
# What happens: Dagster counts the old ones. A new episode c is asked for, the one added again is not, by `missing` and
#   by `eager`; its labels stay those of the old recording. Deleting a partition forgets its key, not what was made of
#   it.
# Versions: dagster 1.13.29
# Output on 28 November 2026:
#   missing: asked for ['c'], made ['a', 'b']
#   eager: asked for ['c'], made ['a', 'b']
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
import warnings

import dagster as dg

warnings.simplefilter("ignore")
logging.disable(logging.CRITICAL)
episodes = dg.DynamicPartitionsDefinition(name="episode")
conditions = {
    "missing": dg.AutomationCondition.missing(),
    "eager": dg.AutomationCondition.eager(),
}


def look(condition):
    @dg.asset(partitions_def=episodes, automation_condition=condition)
    def labels():
        return 0

    definitions = dg.Definitions([labels])
    with dg.DagsterInstance.ephemeral() as instance:
        instance.add_dynamic_partitions("episode", ["a", "b"])
        for episode in "ab":
            dg.materialize([labels], instance=instance, partition_key=episode)
        first = dg.evaluate_automation_conditions(definitions, instance)
        instance.delete_dynamic_partition("episode", "a")
        without = dg.evaluate_automation_conditions(definitions, instance, cursor=first.cursor)
        instance.add_dynamic_partitions("episode", ["a", "c"])
        again = dg.evaluate_automation_conditions(definitions, instance, cursor=without.cursor)
        asked = sorted(again.get_requested_partitions(labels.key) or [])
        return asked, sorted(instance.get_materialized_partitions(labels.key))


seen = {name: look(condition) for name, condition in conditions.items()}
for name, (asked, made) in seen.items():
    print(f"{name}: asked for {asked}, made {made}")

expected = {
    "missing": (["c"], ["a", "b"]),
    "eager": (["c"], ["a", "b"]),
}
if seen != expected:
    sys.exit(f"CHANGED: expected {expected}")
print("As described.")
END
