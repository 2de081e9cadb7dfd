#!/bin/sh
# Guess: An instance of a test's own is left with its `with` block; what loads definitions in the next block asks the
#   next instance, whatever becomes of objects of the first block.
# What happens: `evaluate_tick` of a schedule enters the instance once more by the context of `build_schedule_context`,
#   and only the context's end leaves it. Where nobody closes the context, the garbage collector does, at any later
#   moment, and puts the storage of the first instance back in place of the one that is open: definitions then load from
#   a file in a folder that is gone. `with build_schedule_context(...)` is as guessed.
# Versions: dagster 1.13.29
# Output on 30 November 2026:
#   context closed in its block: loads
#   context collected in the next block: (sqlite3.OperationalError) unable to open database file
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
import gc
import logging
import sys
import warnings
from contextlib import ExitStack
from datetime import UTC, datetime

warnings.simplefilter("ignore")
logging.disable(logging.CRITICAL)
import dagster as dg

NIGHT = datetime(2030, 1, 2, 2, tzinfo=UTC)


@dg.op
def label():
    pass


@dg.job
def build():
    label()


@dg.schedule(cron_schedule="0 2 * * *", job=build)
def nightly(context):
    return dg.RunRequest()


def loading_in_the_next_block(closed):
    contexts = []
    with dg.instance_for_test() as first, ExitStack() as block:
        context = dg.build_schedule_context(first, scheduled_execution_time=NIGHT)
        if closed:
            block.enter_context(context)
        nightly.evaluate_tick(context)
        contexts.append(context)
    del context, block
    with dg.instance_for_test():
        contexts.clear()
        gc.collect()
        try:
            dg.Definitions(jobs=[build]).resolve_job_def("build")
        except Exception as error:
            return str(error).splitlines()[0]
    return "loads"


seen = {
    "context closed in its block": loading_in_the_next_block(closed=True),
    "context collected in the next block": loading_in_the_next_block(closed=False),
}
for name, value in seen.items():
    print(f"{name}: {value}")

expected = {
    "context closed in its block": "loads",
    "context collected in the next block": "(sqlite3.OperationalError) unable to open database file",
}
if seen != expected:
    sys.exit(f"CHANGED: expected {expected}")
print("As described.")
END
