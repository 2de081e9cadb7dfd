#!/usr/bin/env bash
# A team's corpus into a folder: backup.sh FOLDER. The databases first: the files that they name are there already. Files
# of rows never change, so those of an earlier backup stay. Beside a build, but not beside a clean-up; deploy/restore.sh
# puts it back
set -euo pipefail
to=$1
mkdir -p "$to/data" "$to/workspace"
catalog=$(sed -n 's/^catalog = "\(.*\)"$/\1/p' "$PROCCORPUS_WORKSPACE/workspace.toml")
pg_dump --format custom --file "$to/lake.half" "$catalog"
pg_dump --format custom --file "$to/dagster.half" "$DAGSTER_POSTGRES_URL"
cp --archive --update "$PROCCORPUS_WORKSPACE/." "$to/workspace/"
python deploy/copy_files.py "$PROCCORPUS_WORKSPACE" "$to/data" backup
# Only now, when all that they name is there
mv "$to/lake.half" "$to/lake.dump"
mv "$to/dagster.half" "$to/dagster.dump"
