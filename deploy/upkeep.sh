#!/usr/bin/env bash
# Once a day: upkeep.sh BACKUP. Snapshots older than a week that no release pins expire, and what only they listed is
# deleted; then all is backed up. One after the other: a backup that began before a clean-up would miss its files
set -uo pipefail
bash deploy/scheduled.sh clean-up proccorpus gc --yes
cleaned=$?
bash deploy/scheduled.sh backup bash deploy/backup.sh "$1" && exit $cleaned
