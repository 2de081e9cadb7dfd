#!/usr/bin/env bash
# A command of a schedule: scheduled.sh NAME COMMAND [ARGUMENT...]. How it ended is left in the workspace, where /metrics
# of Dagster's webserver finds it, and deploy/monitoring/alerts.yaml tells of it
set -uo pipefail
name=$1
shift
began=$(date +%s)
"$@"
code=$?
folder=$PROCCORPUS_WORKSPACE/metrics
mkdir -p "$folder"
half=$(mktemp "$folder/.half-XXXXXX")
cat >"$half" <<END
proccorpus_scheduled_exit_code{task="$name"} $code
proccorpus_scheduled_seconds{task="$name"} $(($(date +%s) - began))
proccorpus_scheduled_ended_timestamp_seconds{task="$name"} $(date +%s)
END
chmod 644 "$half"
mv "$half" "$folder/$name.prom"
exit $code
