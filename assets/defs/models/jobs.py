"""Jobs over the assets of the second half (release, reward model, evaluation, leaderboard), and a weekly release."""

from datetime import UTC, datetime

import dagster as dg

close_job = dg.define_asset_job(
    "close",
    selection=dg.AssetSelection.groups("models"),
    description="Release, train, evaluate and rank the corpus as it is, if no test data leaks and all is sound.",
)

freeze_job = dg.define_asset_job(
    "freeze",
    selection=dg.AssetSelection.assets("release"),
    description="Freeze the corpus as it is under a name, if nothing leaks into training and all is sound.",
)

score_job = dg.define_asset_job(
    "score",
    selection=dg.AssetSelection.assets("evaluation", "leaderboard"),
    description="Score a model, beside the baselines, on the held-out episodes of a release.",
)


@dg.schedule(
    job=freeze_job,
    cron_schedule="0 6 * * 1",
    description="Mondays at six: a release that stays, named after the day.",
)
def weekly(context: dg.ScheduleEvaluationContext) -> dg.RunRequest:
    day = (context.scheduled_execution_time or datetime.now(UTC)).strftime("%Y-%m-%d")
    name = f"weekly-{day}"
    return dg.RunRequest(run_key=name, run_config={"ops": {"release": {"config": {"name": name}}}})
