"""Jobs and schedules of the code location; they are written down in assets/automation.py."""

import dagster as dg

from assets.automation import close_job, corpus_job, export_job, nightly


@dg.definitions
def jobs() -> dg.Definitions:
    return dg.Definitions(jobs=[corpus_job, close_job, export_job], schedules=[nightly])
