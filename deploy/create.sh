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
# Dagster's servers make their tables when they start; two that do so at once stumble over each other
dagster instance info >/dev/null
