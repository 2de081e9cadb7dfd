"""A release that stays, once a week."""

from datetime import UTC, datetime

import dagster as dg

from assets.defs.models import jobs


@dg.schedule(
    job=jobs.freeze_job,
    cron_schedule="0 6 * * 1",
    description="Mondays at six: a release that stays, named after the day.",
)
def weekly(context: dg.ScheduleEvaluationContext) -> dg.RunRequest:
    day = (context.scheduled_execution_time or datetime.now(UTC)).strftime("%Y-%m-%d")
    name = f"weekly-{day}"
    return dg.RunRequest(run_key=name, run_config={"ops": {"release": {"config": {"name": name}}}})
