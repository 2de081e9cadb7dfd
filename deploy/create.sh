#!/usr/bin/env bash
# A team's bucket, workspace and Dagster's tables, unless they are there. Addresses come from the environment; see docs/operate.md
set -euo pipefail
python - <<'PYTHON'
import boto3

store = boto3.client("s3")
if "corpus" not in {b["Name"] for b in store.list_buckets()["Buckets"]}:
    store.create_bucket(Bucket="corpus")
PYTHON
mkdir -p "$DAGSTER_FILES"
if [ ! -e "$PROCCORPUS_WORKSPACE/workspace.toml" ]; then
  proccorpus workspace create --catalog "${PROCCORPUS_CATALOG:-postgresql://proccorpus@postgres:5432/lake}" \
    --data "${PROCCORPUS_DATA:-s3://corpus/lake}"
fi
# Dagster's servers make their tables when they start, and its runs the limits of their pools; two that do so at once
# stumble over each other, and a run fails
python - <<'PYTHON'
import dagster as dg

from assets.defs.corpus.assets import DOWNLOADS, ENDPOINT

with dg.DagsterInstance.get() as instance:
    for pool in (DOWNLOADS, ENDPOINT):
        instance.event_log_storage.initialize_concurrency_limit_to_default(pool)
PYTHON
