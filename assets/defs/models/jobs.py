"""Jobs over the assets of the second half (release, reward model, evaluation, leaderboard), and what starts them.

That is a weekly schedule, and a sensor of releases that is off until somebody turns it on in the UI.
"""

from datetime import UTC, datetime

import dagster as dg

from assets.defs.resources import CorpusResource
from eval.scored import eval_run_id
from training.runs import newest_model

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


@dg.sensor(
    job=score_job,
    minimum_interval_seconds=60,
    description="A release was made: score the newest model on it, unless that was done.",
)
def new_release(corpus: CorpusResource) -> dg.SensorResult | dg.SkipReason:
    lake = corpus.lake()
    releases = lake.rows(
        "SELECT name, config_hash FROM releases ORDER BY created_at DESC, name LIMIT 1"
    )
    if not releases:
        return dg.SkipReason("there is no release yet")
    model = newest_model(lake)
    if model is None:
        return dg.SkipReason("there is no model yet: materialise reward_model")
    name, content = releases[0]
    if lake.rows(
        "SELECT 1 FROM eval_runs WHERE eval_run = ?", [eval_run_id(model, "held-out", content)]
    ):
        return dg.SkipReason(f"{model} was scored on {name}")
    config = {"ops": {"evaluation": {"config": {"name": name, "model": model}}}}
    return dg.SensorResult([dg.RunRequest(run_key=f"{name}-{content}-{model}", run_config=config)])
