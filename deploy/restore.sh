#!/usr/bin/env bash
# What deploy/backup.sh kept, back to where it was: restore.sh FOLDER. Stop all services but Postgres and the bucket first.
# The databases have to be there, and what they hold is replaced; PROCCORPUS_WORKSPACE has to be empty
set -euo pipefail
from=$1
mkdir -p "$PROCCORPUS_WORKSPACE"
if [ -n "$(ls -A "$PROCCORPUS_WORKSPACE")" ]; then
  echo "error: $PROCCORPUS_WORKSPACE is not empty: move it aside first" >&2
  exit 2
fi
cp --archive "$from/workspace/." "$PROCCORPUS_WORKSPACE/"
catalog=$(sed -n 's/^catalog = "\(.*\)"$/\1/p' "$PROCCORPUS_WORKSPACE/workspace.toml")
python deploy/copy_files.py "$PROCCORPUS_WORKSPACE" "$from/data" restore
pg_restore --clean --if-exists --no-owner --exit-on-error --dbname "$catalog" "$from/lake.dump"
pg_restore --clean --if-exists --no-owner --exit-on-error --dbname "$DAGSTER_POSTGRES_URL" "$from/dagster.dump"
proccorpus doctor --workspace "$PROCCORPUS_WORKSPACE"
