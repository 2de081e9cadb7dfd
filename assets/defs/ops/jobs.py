"""Jobs, schedules and sensors of the code location; they are written down in assets/automation.py and sensors.py."""

import dagster as dg

from assets.automation import (
    build_job,
    close_job,
    corpus_job,
    export_job,
    freeze_job,
    nightly,
    score_job,
    weekly,
)
from assets.sensors import new_corrections, new_release, source_revisions


@dg.definitions
def jobs() -> dg.Definitions:
    return dg.Definitions(
        jobs=[corpus_job, build_job, close_job, freeze_job, score_job, export_job],
        schedules=[nightly, weekly],
        sensors=[source_revisions, new_corrections, new_release],
    )
