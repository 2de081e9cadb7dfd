#!/bin/sh
# Guess: a freshness check of an asset with partitions fails while a partition is too old, or has never been made.
# What happens: it looks at the asset's last materialization, of whichever partition: ep1 is ten seconds old, ep3 was
#   never made, and the check of five seconds passes, since ep2 is new. No error, no word of partitions in its
#   metadata.
# Versions: dagster 1.13.29
# Output on 29 November 2026:
#   ep1 of ten seconds ago: too old
#   and ep2 of now, ep3 never: fresh
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
import datetime
import logging
import sys
import tempfile
import time
import warnings

warnings.simplefilter("ignore")
logging.disable(logging.CRITICAL)
import dagster as dg

EPISODES = dg.StaticPartitionsDefinition(["ep1", "ep2", "ep3"])


@dg.asset(partitions_def=EPISODES)
def frames():
    pass


LATEST = datetime.timedelta(seconds=5)
checks = dg.build_last_update_freshness_checks(assets=[frames], lower_bound_delta=LATEST)
instance = dg.DagsterInstance.ephemeral(tempdir=tempfile.mkdtemp(dir="."))


def is_fresh():
    result = dg.materialize(
        [frames, *checks],
        selection=dg.AssetSelection.checks(*checks),
        instance=instance,
        raise_on_error=False,
    )
    (evaluation,) = result.get_asset_check_evaluations()
    return evaluation.passed


dg.materialize([frames], partition_key="ep1", instance=instance)
time.sleep(10)
seen = {"ep1 of ten seconds ago": is_fresh()}
dg.materialize([frames], partition_key="ep2", instance=instance)
seen["and ep2 of now, ep3 never"] = is_fresh()
for name, fresh in seen.items():
    print(f"{name}: {'fresh' if fresh else 'too old'}")

expected = {
    "ep1 of ten seconds ago": False,
    "and ep2 of now, ep3 never": True,
}
if seen != expected:
    sys.exit(f"CHANGED: expected {expected}")
print("As described.")
END
