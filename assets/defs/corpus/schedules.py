"""The corpus, kept up to date every night."""

import dagster as dg

from assets.defs.corpus import jobs

nightly = dg.ScheduleDefinition(
    name="nightly",
    job=jobs.corpus_job,
    cron_schedule="0 2 * * *",
    run_config={"release": "nightly", "train": False},
    description="Every night at two: what changed is rebuilt and released as `nightly`, and the newest model scored.",
)
